//! The names of all test functions, as `tests/catalogue.toml` writes them.

use std::collections::BTreeSet;

use syn::{Attribute, Item};

use crate::sources::Sources;

/// Every `#[test]` of the sources that is not `#[ignore]`d: folder of the package, modules, function, joined by `::`.
pub(super) fn names(sources: &Sources) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for file in sources.ending(".rs") {
        if let Some(modules) = modules(file)
            && let Ok(text) = sources.text(file)
            && let Ok(syntax) = syn::parse_file(&text)
        {
            collect(&syntax.items, &modules, &mut names);
        }
    }
    names
}

/// `crates/egress/src/dns/tests.rs` is `egress::dns::tests`; `tests/kernel/tests/net.rs` is `kernel::net`.
fn modules(file: &str) -> Option<Vec<String>> {
    let parts: Vec<&str> = file.strip_suffix(".rs")?.split('/').collect();
    let (package, inner) = match parts[..] {
        ["crates" | "tests", package, "src" | "tests", ref inner @ ..] => (package, inner),
        ["xtask", "src", ref inner @ ..] => ("xtask", inner),
        _ => return None,
    };
    let inner = inner.iter().filter(|m| !matches!(**m, "lib" | "main"));
    Some([package].iter().chain(inner).map(|m| (*m).to_owned()).collect())
}

fn collect(items: &[Item], modules: &[String], names: &mut BTreeSet<String>) {
    for item in items {
        match item {
            Item::Fn(f) if f.attrs.iter().any(is_test) && !f.attrs.iter().any(|a| a.path().is_ident("ignore")) => {
                names.insert(format!("{}::{}", modules.join("::"), f.sig.ident));
            }
            Item::Mod(m) => {
                let inner: Vec<_> = modules.iter().cloned().chain([m.ident.to_string()]).collect();
                collect(m.content.as_ref().map_or(&[][..], |(_, items)| items), &inner, names);
            }
            // proptest! { #[test] fn name(…) … }: its body is not items, so its words are read. cases!(name, …) makes
            // tests of functions beside it.
            Item::Macro(m) => {
                let words: Vec<String> = m.mac.tokens.clone().into_iter().map(|t| t.to_string()).collect();
                if m.mac.path.segments.last().is_some_and(|s| s.ident == "cases") {
                    let here = words.iter().filter(|w| items.iter().any(|i| is_function(i, w)));
                    names.extend(here.map(|w| format!("{}::{w}", modules.join("::"))));
                }
                let tests = words.windows(4).filter(|w| w[0] == "#" && w[1].contains("test") && w[2] == "fn");
                names.extend(tests.map(|w| format!("{}::{}", modules.join("::"), w[3])));
            }
            _ => {}
        }
    }
}

fn is_function(item: &Item, name: &str) -> bool {
    matches!(item, Item::Fn(f) if f.sig.ident == name)
}

/// `#[test]`, `#[tokio::test]` and their like.
fn is_test(attribute: &Attribute) -> bool {
    attribute.path().segments.last().is_some_and(|s| s.ident == "test")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_are_named_by_package_and_modules() {
        let (sources, _dir) = Sources::made_of(&[
            (
                "tests/kernel/tests/net/main.rs",
                "crate::cases!(everywhere, gone); fn everywhere() {} #[test] fn refused() {} fn helper() {} #[test] #[ignore] fn never() {}",
            ),
            ("crates/egress/src/lib.rs", "mod tests { #[tokio::test] async fn runs() {} }"),
            ("crates/egress/src/dns/tests.rs", "#[test] fn answers() {} proptest! { #[test] fn any(x in 0..9) {} }"),
        ]);
        let names: Vec<_> = names(&sources).into_iter().collect();
        let expected = [
            "egress::dns::tests::answers",
            "egress::dns::tests::any",
            "egress::tests::runs",
            "kernel::net::everywhere",
            "kernel::net::refused",
        ];
        assert_eq!(names, expected);
    }
}
