//! "Did you mean …?"

/// The candidate that a misspelt word most probably meant.
pub(super) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_ascii_lowercase();
    let near = candidates.into_iter().map(|candidate| (distance(&word, &candidate.to_ascii_lowercase()), candidate));
    let (distance, candidate) = near.min_by_key(|(distance, _)| *distance)?;
    (distance <= candidate.len().div_ceil(3).min(3)).then_some(candidate)
}

/// Edits from one word to the other: insert, delete, replace, swap two neighbours (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            rows[i][j] = match (i, j) {
                (0, n) | (n, 0) => n,
                _ => {
                    let replace = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
                    let mut least = replace.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
                    if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                        least = least.min(rows[i - 2][j - 2] + 1);
                    }
                    least
                }
            };
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_words_are_found_and_far_ones_are_not() {
        let keys = ["mode", "ports", "refuse_with", "exe", "user", "to"];
        assert_eq!(nearest("prots", keys), Some("ports"));
        assert_eq!(nearest("users", keys), Some("user"));
        assert_eq!(nearest("refuse-with", keys), Some("refuse_with"));
        assert_eq!(nearest("EXE", keys), Some("exe"));
        assert_eq!(nearest("banana", keys), None);
        assert_eq!(nearest("x", []), None);
    }
}
