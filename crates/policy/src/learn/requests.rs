//! Requests that were seen, as the least rules that allow them.

use std::collections::{BTreeMap, BTreeSet};

use crate::denial::quoted;

/// Most requests remembered of one host and port. The command chooses what it asks for; this bounds what that costs.
const MAX_REQUESTS: usize = 2_000;
/// Longest path remembered.
const MAX_PATH: usize = 2_048;
/// From so many different identifiers at one place on, the place stands for all of them.
const SEVERAL: usize = 3;

/// Segments of a path; `None` for an identifier.
type Shape<'p> = Vec<Option<&'p str>>;

/// What was asked of one host and port.
#[derive(Debug, Clone, Default)]
pub(super) struct Requests(BTreeSet<(String, String)>);

impl Requests {
    /// Notes a request, if there is room for it.
    /// `OPTIONS *` has no path that a rule could name.
    pub(super) fn add(&mut self, method: &str, path: &str) -> bool {
        let new = (method.to_owned(), path.to_owned());
        if !path.starts_with('/') || path.len() > MAX_PATH || (self.0.len() >= MAX_REQUESTS && !self.0.contains(&new)) {
            return false;
        }
        self.0.insert(new);
        true
    }

    /// `allow` with its rules, one for each set of methods.
    pub(super) fn rules(&self) -> String {
        let mut methods: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
        for (pattern, method) in self.patterns() {
            methods.entry(pattern).or_default().insert(method);
        }
        let mut paths: BTreeMap<BTreeSet<&str>, BTreeSet<String>> = BTreeMap::new();
        for (pattern, methods) in methods {
            paths.entry(methods).or_default().insert(pattern);
        }
        let line = |(methods, paths): (BTreeSet<&str>, BTreeSet<String>)| {
            let methods: Vec<&str> = methods.into_iter().collect();
            let paths: Vec<String> = paths.iter().map(|p| quoted(p)).collect();
            format!("        - {{methods: [{}], paths: [{}]}}\n", methods.join(", "), paths.join(", "))
        };
        format!("      allow:\n{}", paths.into_iter().map(line).collect::<String>())
    }

    /// Paths with `*` where several identifiers were seen, each with its method.
    fn patterns(&self) -> Vec<(String, &str)> {
        // Paths of one method that differ in identifiers alone.
        let mut alike: BTreeMap<(&str, Shape<'_>), Vec<Vec<&str>>> = BTreeMap::new();
        for (method, path) in &self.0 {
            let segments: Vec<&str> = path.split('/').skip(1).collect();
            let shape: Shape<'_> = segments.iter().map(|s| (!identifier(s)).then_some(*s)).collect();
            alike.entry((method, shape)).or_default().push(segments);
        }
        let mut patterns = Vec::new();
        for ((method, shape), paths) in alike {
            let several = |at: usize| {
                let values: BTreeSet<_> = paths.iter().filter_map(|path| path.get(at)).collect();
                values.len() >= SEVERAL
            };
            let any: Vec<bool> = shape.iter().enumerate().map(|(at, s)| s.is_none() && several(at)).collect();
            for path in &paths {
                let segment = |(s, any): (&&str, &bool)| match any {
                    true => "/*".to_owned(),
                    // A star of the path stands for itself.
                    false => format!("/{}", s.replace('*', "%2A")),
                };
                patterns.push((path.iter().zip(&any).map(segment).collect(), method));
            }
        }
        patterns
    }
}

/// Whether a segment is a number, a UUID or a hash: of what it names there are many.
fn identifier(segment: &str) -> bool {
    let number = !segment.is_empty() && segment.bytes().all(|b| b.is_ascii_digit());
    let hex = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_hexdigit());
    let uuid = || {
        let parts: Vec<&str> = segment.split('-').collect();
        parts.iter().map(|p| p.len()).eq([8, 4, 4, 4, 12]) && parts.iter().all(|p| hex(p))
    };
    let hash = || segment.len() >= 8 && hex(segment) && segment.bytes().any(|b| b.is_ascii_digit());
    number || uuid() || hash()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(seen: &[(&str, &str)]) -> String {
        let mut requests = Requests::default();
        seen.iter().for_each(|(method, path)| assert!(requests.add(method, path)));
        requests.rules()
    }

    #[test]
    fn identifiers() {
        for text in ["7", "007", "0123456789abcdef", "deadbeef1", "3F2504E0-4F89-11D3-9A0C-0305E82C3301"] {
            assert!(identifier(text), "{text}");
        }
        for text in ["", "v1", "decade", "deadbeef", "1a", "3F2504E0-4F89-11D3-9A0C", "main", "1.2", "-1"] {
            assert!(!identifier(text), "{text}");
        }
    }

    #[test]
    fn a_place_is_generalised_from_three_identifiers_on() {
        let two = [("GET", "/issues/1"), ("GET", "/issues/2")];
        assert_eq!(rules(&two), "      allow:\n        - {methods: [GET], paths: [/issues/1, /issues/2]}\n");
        let three = [two.as_slice(), &[("GET", "/issues/33")]].concat();
        assert_eq!(rules(&three), "      allow:\n        - {methods: [GET], paths: [\"/issues/*\"]}\n");
        // Another method has evidence of its own, and so has another place.
        let more = [three.as_slice(), &[("POST", "/issues/4"), ("GET", "/issues/4/comments/9")]].concat();
        let want = "      allow:\n        - {methods: [GET], paths: [\"/issues/*\", /issues/4/comments/9]}\n        \
            - {methods: [POST], paths: [/issues/4]}\n";
        assert_eq!(rules(&more), want);
    }

    #[test]
    fn words_are_never_generalised() {
        let seen: Vec<(&str, &str)> = ["/a", "/b", "/c", "/d/x", "/e/x", "/f/x"].map(|p| ("GET", p)).to_vec();
        assert_eq!(rules(&seen), "      allow:\n        - {methods: [GET], paths: [/a, /b, /c, /d/x, /e/x, /f/x]}\n");
    }

    #[test]
    fn methods_of_the_same_paths_share_a_rule() {
        let seen = [("GET", "/a"), ("HEAD", "/a"), ("GET", "/b*c"), ("HEAD", "/b*c"), ("PUT", "/true")];
        let want = "      allow:\n        - {methods: [GET, HEAD], paths: [/a, \"/b%2Ac\"]}\n        \
            - {methods: [PUT], paths: [/true]}\n";
        assert_eq!(rules(&seen), want);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut requests = Requests::default();
        let added = (0..MAX_REQUESTS + 5).filter(|i| requests.add("GET", &format!("/{i}"))).count();
        assert_eq!(added, MAX_REQUESTS);
        assert!(requests.add("GET", "/0") && !requests.add("GET", &"/x".repeat(MAX_PATH)));
    }
}
