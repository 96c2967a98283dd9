//! Names with `*` and `?` in them.

/// Whether a name matches a pattern of `*` (any characters) and `?` (one). A leading dot must be written out.
#[must_use]
pub fn matches(pattern: &str, name: &str) -> bool {
    fn rest(pattern: &[char], name: &[char]) -> bool {
        match (pattern.first(), name.first()) {
            (None, None) => true,
            (Some('*'), _) => rest(&pattern[1..], name) || (!name.is_empty() && rest(pattern, &name[1..])),
            (Some('?'), Some(_)) => rest(&pattern[1..], &name[1..]),
            (Some(a), Some(b)) => a == b && rest(&pattern[1..], &name[1..]),
            (None, Some(_)) | (Some(_), None) => false,
        }
    }
    let hidden = name.starts_with('.') && !pattern.starts_with('.');
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    !hidden && rest(&pattern, &name)
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn names_match_as_in_a_shell() {
        assert!(matches("*.toml", "a.toml") && matches("a?c", "abc") && matches("*", "x") && matches("a*b*c", "a1b2c"));
        assert!(!matches("*.toml", ".a.toml") && !matches("*.toml", "a.toml~") && !matches("a?c", "ac"));
    }
}
