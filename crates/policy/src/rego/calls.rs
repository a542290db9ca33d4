//! How deep calls nest. A function that calls itself would exhaust the stack of the thread that evaluates it, which
//! ends the whole program: neither evaluator bounds it, so it is found before anything is evaluated.

use std::collections::BTreeMap;

use regorus::rvm::{instructions::Instruction, program::Program as Code};

/// Deepest nesting of rules and functions.
const MAX_DEPTH: usize = 24;

/// What is wrong with the calls, if anything.
pub(crate) fn check(code: &Code) -> Result<(), String> {
    let graph = Graph::new(code);
    let mut depths = vec![Depth::Unknown; code.rule_infos.len()];
    for rule in 0..code.rule_infos.len() {
        graph.depth(rule, &mut depths, 0).map_err(|at| {
            let name = code.rule_infos.get(at).map_or("a rule", |r| r.name.as_str());
            let name = stockade_types::Escaped(name.strip_prefix("data.stockade.custom.").unwrap_or(name)).to_string();
            format!("recursion, or calls nested deeper than {MAX_DEPTH}, through `{name}`")
        })?;
    }
    Ok(())
}

#[derive(Clone, Copy)]
enum Depth {
    Unknown,
    Entered,
    Is(usize),
}

/// Which rule calls which.
struct Graph {
    calls: Vec<Vec<usize>>,
}

impl Graph {
    /// Bodies of rules are laid out one after the other: an instruction belongs to the body that began last.
    fn new(code: &Code) -> Self {
        let mut begins: BTreeMap<usize, usize> = BTreeMap::new();
        for (rule, info) in code.rule_infos.iter().enumerate() {
            let blocks = info.destructuring_blocks.iter().flatten();
            for pc in info.definitions.iter().flatten().chain(blocks) {
                begins.insert(*pc as usize, rule);
            }
        }
        let mut calls = vec![Vec::new(); code.rule_infos.len()];
        for (pc, instruction) in code.instructions.iter().enumerate() {
            let callee = match instruction {
                Instruction::FunctionCall { params_index } => {
                    let params = code.instruction_data.function_call_params.get(usize::from(*params_index));
                    params.map(|p| usize::from(p.func_rule_index))
                }
                Instruction::CallRule { rule_index, .. } => Some(usize::from(*rule_index)),
                _ => None,
            };
            let caller = begins.range(..=pc).next_back().map(|(_, rule)| *rule);
            if let (Some(callee), Some(list)) = (callee, caller.and_then(|c| calls.get_mut(c))) {
                list.push(callee);
            }
        }
        Self { calls }
    }

    /// The depth below a rule, or the rule at which it is too much.
    fn depth(&self, rule: usize, depths: &mut [Depth], above: usize) -> Result<usize, usize> {
        match depths.get(rule) {
            Some(Depth::Is(known)) if above + known <= MAX_DEPTH => return Ok(*known),
            Some(Depth::Unknown) if above <= MAX_DEPTH => {}
            _ => return Err(rule),
        }
        if let Some(depth) = depths.get_mut(rule) {
            *depth = Depth::Entered;
        }
        let mut below = 0;
        for callee in self.calls.get(rule).into_iter().flatten() {
            below = below.max(1 + self.depth(*callee, depths, above + 1)?);
        }
        if let Some(depth) = depths.get_mut(rule) {
            *depth = Depth::Is(below);
        }
        Ok(below)
    }
}
