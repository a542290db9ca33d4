//! Files, functions and parameter lists stay small. Only what ships is measured, without its tests.

use syn::{
    Attribute, FnArg, ImplItemFn, Item, ItemFn, Pat, Signature, TraitItemFn,
    spanned::Spanned,
    visit::{self, Visit},
};

use super::Finding;
use crate::sources::{Sources, is_production};

/// What is measured: above the first number it is printed, above the second it fails.
struct Limit {
    what: &'static str,
    aim: usize,
    most: usize,
}

const FILE: Limit = Limit { what: "lines in this file", aim: 400, most: 600 };
const FUNCTION: Limit = Limit { what: "lines in", aim: 60, most: 100 };
const PARAMETERS: Limit = Limit { what: "parameters of", aim: 5, most: 7 };

impl Limit {
    fn measure(&self, file: &str, line: usize, name: &str, size: usize) -> Option<Finding> {
        let text = format!("{size} {} {name}(aim {}, at most {})", self.what, self.aim, self.most);
        match size {
            s if s > self.most => Some(Finding::error(file, line, text)),
            s if s > self.aim => Some(Finding::note(file, line, text)),
            _ => None,
        }
    }
}

pub(super) fn check(sources: &Sources) -> Vec<Finding> {
    let shipped = sources.ending(".rs").filter(|f| is_production(f));
    shipped
        .flat_map(|file| match sources.text(file) {
            Ok(text) => file_sizes(file, &text),
            Err(e) => vec![Finding::error(file, 1, e.to_string())],
        })
        .collect()
}

fn file_sizes(file: &str, text: &str) -> Vec<Finding> {
    let syntax = match syn::parse_file(text) {
        Ok(syntax) => syntax,
        Err(e) => return vec![Finding::error(file, e.span().start().line, format!("not Rust: {e}"))],
    };
    let mut measured = Measured { file, findings: Vec::new(), test_lines: 0 };
    measured.visit_file(&syntax);
    let lines = text.lines().count().saturating_sub(measured.test_lines);
    measured.findings.extend(FILE.measure(file, 1, "", lines));
    measured.findings
}

struct Measured<'a> {
    file: &'a str,
    findings: Vec<Finding>,
    test_lines: usize,
}

impl Measured<'_> {
    fn function(&mut self, signature: &Signature, lines: usize) {
        let (line, name) = (signature.span().start().line, format!("`{}` ", signature.ident));
        // One that is not even named is there because a trait of others wants it.
        let ours = |input: &&FnArg| matches!(input, FnArg::Typed(typed) if !matches!(*typed.pat, Pat::Wild(_)));
        let parameters = signature.inputs.iter().filter(ours).count();
        self.findings.extend(FUNCTION.measure(self.file, line, &name, lines));
        self.findings.extend(PARAMETERS.measure(self.file, line, &name, parameters));
    }
}

impl<'ast> Visit<'ast> for Measured<'_> {
    fn visit_item(&mut self, item: &'ast Item) {
        if is_test(attributes(item)) {
            self.test_lines += lines(item);
        } else {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_fn(&mut self, item: &'ast ItemFn) {
        self.function(&item.sig, lines_from(&item.sig, item));
        visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast ImplItemFn) {
        self.function(&item.sig, lines_from(&item.sig, item));
        visit::visit_impl_item_fn(self, item);
    }

    fn visit_trait_item_fn(&mut self, item: &'ast TraitItemFn) {
        self.function(&item.sig, lines_from(&item.sig, item));
        visit::visit_trait_item_fn(self, item);
    }
}

fn lines(item: &impl Spanned) -> usize {
    lines_from(item, item)
}

/// Lines from the start of `first` to the end of `whole`: documentation and attributes above are not counted.
fn lines_from(first: &impl Spanned, whole: &impl Spanned) -> usize {
    whole.span().end().line + 1 - first.span().start().line
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Mod(i) => &i.attrs,
        Item::Fn(i) => &i.attrs,
        Item::Impl(i) => &i.attrs,
        Item::Use(i) => &i.attrs,
        Item::Struct(i) => &i.attrs,
        _ => &[],
    }
}

/// `#[cfg(test)]` and the like, and `#[test]`.
fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|a| {
        a.path().is_ident("test")
            || a.path().is_ident("cfg") && a.parse_args::<syn::Ident>().is_ok_and(|ident| ident == "test")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<String> {
        super::super::texts(&file_sizes("crates/a/src/lib.rs", text))
    }

    fn function(lines: usize) -> String {
        format!("fn f() {{\n{}}}\n", "    g();\n".repeat(lines - 2))
    }

    #[test]
    fn functions_are_measured_to_the_line() {
        assert_eq!(found(&function(60)), [""; 0]);
        assert_eq!(found(&function(61)), ["crates/a/src/lib.rs:1: note: 61 lines in `f` (aim 60, at most 100)"]);
        assert!(!file_sizes("x.rs", &function(100))[0].fatal);
        assert!(file_sizes("x.rs", &function(101))[0].fatal);
    }

    #[test]
    fn methods_are_measured_and_self_is_no_parameter() {
        let five = "struct S;\nimpl S {\n    fn f(&self, a: u8, b: u8, c: u8, d: u8, e: u8) {}\n}\n";
        assert_eq!(found(five), [""; 0]);
        let eight = "fn f(a: u8, b: u8, c: u8, d: u8, e: u8, f: u8, g: u8, h: u8) {}";
        assert_eq!(found(eight), ["crates/a/src/lib.rs:1: 8 parameters of `f` (aim 5, at most 7)"]);
        let foreign = "struct S;\nimpl T for S {\n    fn f(&self, a: u8, _: u8, _: u8, _: u8, _: u8, _: u8, _: u8, _: u8) {}\n}\n";
        assert_eq!(found(foreign), [""; 0]);
    }

    #[test]
    fn tests_are_not_counted() {
        let long = "// line\n".repeat(601);
        assert_eq!(found(&long).len(), 1);
        let tests =
            format!("fn f() {{}}\n#[cfg(test)]\nmod tests {{\n{}\n{}}}\n", function(150), "// line\n".repeat(601));
        assert_eq!(found(&tests), [""; 0]);
        let unlike = tests.replace("cfg(test)", "cfg(unix)");
        assert_eq!(found(&unlike).len(), 2, "only tests are left out");
    }

    #[test]
    fn broken_files_and_test_files() {
        assert!(found("fn f( {")[0].contains("not Rust"));
        let (sources, _dir) = Sources::made_of(&[("crates/testkit/src/lib.rs", "fn f( {"), ("tests/x.rs", "fn (")]);
        assert_eq!(check(&sources), []);
    }
}
