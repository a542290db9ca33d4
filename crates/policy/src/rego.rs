//! The engine: modules compiled and evaluated. Whatever goes wrong in it is an [`EngineError`], which denies.
//!
//! regorus has two evaluators. Its machine is the quick one, and decides connections by the base policy. It treats an
//! error inside a rule (a division by zero, an invalid pattern, two values for one rule) as undefined, even when asked
//! to be strict: the base policy is fail-closed under that, a user's `deny` rule would fail open. User modules are
//! therefore evaluated by the interpreter, which reports errors, and compiled for the machine only to be checked.

mod calls;

use std::{
    num::NonZeroU32,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use regorus::{
    Engine, Value,
    languages::rego::compiler::Compiler,
    rvm::{program::Program as Code, vm::RegoVM},
    utils::limits::ExecutionTimerConfig,
};

use crate::diagnostic::{Diagnostic, Position, Rejected, Source};

/// Longest evaluation, on the wall clock: the engine knows no other. An ordinary one takes microseconds.
const TIME_LIMIT: Duration = Duration::from_millis(50);
/// The clock is read every so many steps: far above what an ordinary policy takes, so that a thread that is
/// descheduled for longer than the limit is not mistaken for a policy that runs for ever.
const MACHINE_STEPS: NonZeroU32 = NonZeroU32::new(8_192).unwrap();
const INTERPRETER_STEPS: NonZeroU32 = NonZeroU32::new(512).unwrap();
/// Most instructions of one evaluation.
const MAX_INSTRUCTIONS: usize = 20_000_000;
/// Evaluators kept for the next evaluation; more are made under load and dropped.
const MAX_IDLE: usize = 4;

/// The engine gave no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EngineError {
    /// Error, time or instruction limit.
    #[error("the policy engine failed: {0}")]
    Failed(String),
    /// A panic inside the engine.
    #[error("the policy engine panicked")]
    Panicked,
    /// An answer of another shape than the entry point has.
    #[error("the policy engine gave no usable answer")]
    Unusable,
}

/// Evaluators at rest. One that failed is dropped: it may hold half a state.
struct Idle<T>(Mutex<Vec<T>>);

impl<T> Idle<T> {
    fn with<R>(
        &self,
        make: impl FnOnce() -> Result<T, EngineError>,
        run: impl FnOnce(&mut T) -> Result<R, EngineError>,
    ) -> Result<R, EngineError> {
        let rested = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut evaluator = match rested {
            Some(evaluator) => evaluator,
            None => make()?,
        };
        let answer = catch_unwind(AssertUnwindSafe(|| run(&mut evaluator))).map_err(|_| EngineError::Panicked)??;
        let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < MAX_IDLE {
            idle.push(evaluator);
        }
        Ok(answer)
    }
}

/// A program for the machine. Evaluation is by any number of threads at once.
pub(crate) struct Program {
    code: Arc<Code>,
    idle: Idle<RegoVM>,
}

impl Program {
    /// Compiles modules with one entry point.
    pub(crate) fn compile(modules: &[Source], entry_point: &str) -> Result<Self, Rejected> {
        let mut engine = load(modules, |_| Ok(()))?;
        let code = lower(&mut engine, modules, &[entry_point])?;
        Ok(Self { code, idle: Idle(Mutex::new(Vec::new())) })
    }

    /// Evaluates the entry point.
    pub(crate) fn eval(&self, input: Value) -> Result<Value, EngineError> {
        self.idle.with(
            || self.machine(),
            |vm| {
                vm.set_input(input);
                vm.execute_entry_point_by_index(0).map_err(|e| EngineError::Failed(sentence(&e.to_string())))
            },
        )
    }

    fn machine(&self) -> Result<RegoVM, EngineError> {
        let mut vm = RegoVM::new();
        vm.load_program(Arc::clone(&self.code));
        vm.set_data(Value::new_object()).map_err(|e| EngineError::Failed(e.to_string()))?;
        vm.set_max_instructions(MAX_INSTRUCTIONS);
        vm.set_strict_builtin_errors(true);
        vm.set_execution_timer_config(Some(ExecutionTimerConfig { limit: TIME_LIMIT, check_interval: MACHINE_STEPS }));
        Ok(vm)
    }
}

/// Modules for the interpreter. Evaluation is by any number of threads at once.
pub(crate) struct Modules {
    ready: Engine,
    idle: Idle<Engine>,
    pub(crate) code: Arc<Code>,
}

impl Modules {
    /// Compiles modules, each of a package that `accept` likes. Of the entry points those are kept that are defined.
    ///
    /// What the machine's compiler makes of them shows what the interpreter would meet only when it gets there:
    /// unknown functions, functions of more than their arguments, and recursion.
    pub(crate) fn compile(
        modules: &[Source],
        entry_points: &[&str],
        accept: impl Fn(&str) -> Result<(), String>,
    ) -> Result<Self, Rejected> {
        let mut ready = load(modules, accept)?;
        let code = lower(&mut ready.clone(), modules, entry_points)?;
        calls::check(&code).map_err(|message| {
            let names = modules.iter().map(|m| m.name.as_str()).collect::<Vec<_>>().join(", ");
            Rejected::one(&names, Position::default(), message, None)
        })?;
        ready.set_strict_builtin_errors(true);
        // What a module prints must not reach the operator's terminal.
        ready.set_gather_prints(true);
        ready.set_execution_timer_config(ExecutionTimerConfig { limit: TIME_LIMIT, check_interval: INTERPRETER_STEPS });
        Ok(Self { ready, idle: Idle(Mutex::new(Vec::new())), code })
    }

    /// Whether an entry point is defined.
    pub(crate) fn defines(&self, entry_point: &str) -> bool {
        self.code.entry_points.contains_key(entry_point)
    }

    /// Evaluates an entry point that is defined.
    pub(crate) fn eval(&self, entry_point: &str, input: Value) -> Result<Value, EngineError> {
        self.idle.with(
            || Ok(self.ready.clone()),
            |engine| {
                engine.set_input(input);
                let answer = engine.eval_rule(entry_point.to_owned());
                // Printed text is dropped; there is nothing to do if there is none to take.
                let _ = engine.take_prints();
                answer.map_err(|e| EngineError::Failed(sentence(&e.to_string())))
            },
        )
    }
}

impl std::fmt::Debug for Program {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Program").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Modules {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Modules").finish_non_exhaustive()
    }
}

/// Parses modules. The engine sees stand-ins for their names, so that no file name can confuse the reading of its
/// messages.
fn load(modules: &[Source], accept: impl Fn(&str) -> Result<(), String>) -> Result<Engine, Rejected> {
    let mut engine = Engine::new();
    let mut wrong = Vec::new();
    for (i, module) in modules.iter().enumerate() {
        match engine.add_policy(format!("module{i}"), module.text.clone()) {
            Ok(package) => {
                if let Err(message) = accept(&package) {
                    wrong.extend(Rejected::one(&module.name, package_line(&module.text), message, None).0);
                }
            }
            Err(e) => wrong.push(diagnose(modules, Some(module), &e.to_string())),
        }
    }
    if wrong.is_empty() { Ok(engine) } else { Err(Rejected(wrong)) }
}

/// Compiles for the machine those entry points that are defined.
fn lower(engine: &mut Engine, modules: &[Source], entry_points: &[&str]) -> Result<Arc<Code>, Rejected> {
    let failed = |e: &dyn std::fmt::Display| Rejected(vec![diagnose(modules, None, &e.to_string())]);
    let mut compiled = Err(String::from("no entry point is defined"));
    for entry_point in entry_points {
        compiled = engine.clone().compile_with_entrypoint(&(*entry_point).into()).map_err(|e| e.to_string());
        if compiled.is_ok() {
            break;
        }
    }
    let compiled = compiled.map_err(|e| {
        let mut wrong = diagnose(modules, None, &e);
        if wrong.line == 0 {
            // No rule has a name that is asked for, as after a slip of the pen.
            wrong.help =
                Some("a module defines `deny contains msg if { … }` or `ask contains msg if { … }`".to_owned());
        }
        Rejected(vec![wrong])
    })?;
    let defined: Vec<&str> = entry_points.iter().copied().filter(|e| compiled.get_rules().contains_key(*e)).collect();
    Compiler::compile_from_policy(&compiled, &defined).map_err(|e| failed(&e))
}

/// Where a module says its package.
fn package_line(text: &str) -> Position {
    let line = text.lines().position(|l| l.trim_start().starts_with("package")).unwrap_or(0);
    Position { line: u32::try_from(line + 1).unwrap_or(u32::MAX), column: 1 }
}

/// An engine report as a diagnostic: `--> module0:3:7 … error: …`.
pub(crate) fn diagnose(modules: &[Source], one: Option<&Source>, report: &str) -> Diagnostic {
    let place = report.lines().find_map(|line| {
        let (at, rest) = line.trim_start().strip_prefix("--> module")?.split_once(':')?;
        let (line, column) = rest.split_once(':')?;
        Some((at.parse::<usize>().ok()?, line.parse().ok()?, column.trim().parse().ok()?))
    });
    let (at, line, column) = place.unwrap_or((usize::MAX, 0, 0));
    let file = match modules.get(at).or(one) {
        Some(module) => module.name.clone(),
        None => modules.iter().map(|m| m.name.as_str()).collect::<Vec<_>>().join(", "),
    };
    let message = format!("not valid Rego: {}", sentence(report));
    Diagnostic { file, line, column, path: String::new(), message, help: None }
}

/// What an engine report says, without the excerpt of the source.
pub(crate) fn sentence(report: &str) -> String {
    let marked = report.lines().find_map(|l| l.trim_start().strip_prefix("error: "));
    let line = marked.or_else(|| report.lines().rev().find(|l| !l.trim().is_empty())).unwrap_or("no reason given");
    stockade_types::Escaped(line.trim()).to_string()
}
