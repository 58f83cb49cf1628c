//! Unified diffs by the algorithm of Ratcliff and Obershelp, known from Python's difflib (and its Go port): find the
//! longest common run of lines, then repeat to the left and right of it. Its results are not minimal, and clients see
//! them, so details matter: of equally long runs the earliest wins, and in texts of 200 lines and more, frequent lines
//! do not start a run.

use std::cell::Cell;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::ops::Range;

/// Lines of context around a change.
const CONTEXT: usize = 3;
/// In texts with at least so many lines, frequent lines are not used to find runs.
const FREQUENT_FROM: usize = 200;

/// How many comparisons are made to find runs. The search is quadratic and more in the number of lines: texts of some
/// thousand lines would take minutes. What remains when these are spent is shown as one change.
const COMPARED: usize = 4_000_000;

/// A section of both texts, equal or different.
struct Stretch {
    equal: bool,
    old: Range<usize>,
    new: Range<usize>,
}

/// The unified diff of two texts without file names; empty if they are equal.
pub(super) fn diff(old: &str, new: &str) -> String {
    let old: Vec<&str> = old.split('\n').collect();
    let new: Vec<&str> = new.split('\n').collect();
    let mut out = String::new();
    for hunk in hunks(stretches(&old, &new)) {
        let (Some(first), Some(last)) = (hunk.first(), hunk.last()) else {
            continue;
        };
        let _ = writeln!(
            out,
            "@@ -{} +{} @@",
            lines(first.old.start, last.old.end),
            lines(first.new.start, last.new.end)
        );
        for stretch in &hunk {
            let mut print = |sign: char, text: &[&str]| {
                for line in text {
                    let _ = writeln!(out, "{sign}{line}");
                }
            };
            if stretch.equal {
                print(' ', old.get(stretch.old.clone()).unwrap_or_default());
            } else {
                print('-', old.get(stretch.old.clone()).unwrap_or_default());
                print('+', new.get(stretch.new.clone()).unwrap_or_default());
            }
        }
    }
    out
}

/// A range as shown in a hunk's header.
fn lines(start: usize, end: usize) -> String {
    match end - start {
        1 => format!("{}", start + 1),
        0 => format!("{start},0"),
        length => format!("{},{length}", start + 1),
    }
}

/// A run of equal lines: its start in both texts, and its length.
type Run = (usize, usize, usize);

struct Matcher<'a> {
    old: &'a [&'a str],
    new: &'a [&'a str],
    /// The positions in the new text of each line that is not frequent.
    places: HashMap<&'a str, Vec<usize>>,
    /// How many comparisons may still be made.
    left: Cell<usize>,
}

impl Matcher<'_> {
    /// The longest run in both ranges.
    fn longest(&self, old: &Range<usize>, new: &Range<usize>) -> Run {
        let (mut at_old, mut at_new, mut best) = (old.start, new.start, 0);
        // For each position in the new text, the length of the run that ends there and at the current old line.
        let mut lengths: HashMap<usize, usize> = HashMap::new();
        for i in old.clone() {
            let places = self.places.get(self.old[i]).map_or(&[][..], Vec::as_slice);
            match self.left.get().checked_sub(1 + places.len()) {
                Some(left) => self.left.set(left),
                None => return (old.start, new.start, 0),
            }
            let mut next = HashMap::new();
            for &j in places {
                if !new.contains(&j) {
                    continue;
                }
                let before = j.checked_sub(1).and_then(|j| lengths.get(&j));
                let length = before.copied().unwrap_or(0) + 1;
                next.insert(j, length);
                if length > best {
                    (at_old, at_new, best) = (i + 1 - length, j + 1 - length, length);
                }
            }
            lengths = next;
        }
        // Frequent lines only extend a run.
        while at_old > old.start
            && at_new > new.start
            && self.old[at_old - 1] == self.new[at_new - 1]
        {
            (at_old, at_new, best) = (at_old - 1, at_new - 1, best + 1);
        }
        while at_old + best < old.end
            && at_new + best < new.end
            && self.old[at_old + best] == self.new[at_new + best]
        {
            best += 1;
        }
        (at_old, at_new, best)
    }

    fn runs(&self, old: Range<usize>, new: Range<usize>, found: &mut Vec<Run>) {
        let (i, j, length) = self.longest(&old, &new);
        if length == 0 {
            return;
        }
        if old.start < i && new.start < j {
            self.runs(old.start..i, new.start..j, found);
        }
        found.push((i, j, length));
        if i + length < old.end && j + length < new.end {
            self.runs(i + length..old.end, j + length..new.end, found);
        }
    }
}

fn stretches(old: &[&str], new: &[&str]) -> Vec<Stretch> {
    let mut places: HashMap<&str, Vec<usize>> = HashMap::new();
    for (index, line) in new.iter().enumerate() {
        places.entry(line).or_default().push(index);
    }
    if new.len() >= FREQUENT_FROM {
        places.retain(|_, places| places.len() <= new.len() / 100 + 1);
    }
    let matcher = Matcher {
        old,
        new,
        places,
        left: Cell::new(COMPARED),
    };
    let mut runs = Vec::new();
    matcher.runs(0..old.len(), 0..new.len(), &mut runs);
    runs.push((old.len(), new.len(), 0));

    let mut stretches: Vec<Stretch> = Vec::new();
    let (mut i, mut j) = (0, 0);
    for (at_old, at_new, length) in runs {
        if i < at_old || j < at_new {
            stretches.push(Stretch {
                equal: false,
                old: i..at_old,
                new: j..at_new,
            });
        }
        (i, j) = (at_old + length, at_new + length);
        match stretches.last_mut() {
            // Merge adjacent runs.
            Some(last) if last.equal && length > 0 => (last.old.end, last.new.end) = (i, j),
            _ if length > 0 => stretches.push(Stretch {
                equal: true,
                old: at_old..i,
                new: at_new..j,
            }),
            _ => {}
        }
    }
    stretches
}

/// Changes with their context; nearby ones share a hunk.
fn hunks(mut stretches: Vec<Stretch>) -> Vec<Vec<Stretch>> {
    let head = |s: &Stretch| Stretch {
        equal: true,
        old: s.old.start..s.old.end.min(s.old.start + CONTEXT),
        new: s.new.start..s.new.end.min(s.new.start + CONTEXT),
    };
    let tail = |s: &Stretch| Stretch {
        equal: true,
        old: s.old.start.max(s.old.end.saturating_sub(CONTEXT))..s.old.end,
        new: s.new.start.max(s.new.end.saturating_sub(CONTEXT))..s.new.end,
    };
    if let Some(first) = stretches.first_mut().filter(|s| s.equal) {
        *first = tail(first);
    }
    if let Some(last) = stretches.last_mut().filter(|s| s.equal) {
        *last = head(last);
    }
    let mut hunks = Vec::new();
    let mut hunk = Vec::new();
    for stretch in stretches {
        if stretch.equal && stretch.old.len() > 2 * CONTEXT {
            hunk.push(head(&stretch));
            hunks.push(std::mem::take(&mut hunk));
            hunk.push(tail(&stretch));
        } else {
            hunk.push(stretch);
        }
    }
    hunks.push(hunk);
    hunks.retain(|hunk| hunk.iter().any(|stretch| !stretch.equal));
    hunks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_texts_have_no_difference() {
        assert_eq!(diff("a\nb", "a\nb"), "");
    }

    #[test]
    fn very_long_texts_are_only_compared_in_part() {
        let text = |other: char| {
            let lines = (0..50_000).map(|i| format!("a{i}\n{other}{i}\n"));
            lines.collect::<String>()
        };
        let diff = diff(&text('x'), &text('y'));
        let told = diff.lines().filter(|line| line.starts_with(['-', '+']));
        // All that changed is told, and what was not compared, too.
        assert!(told.count() >= 100_000);
    }

    #[test]
    fn changes_far_apart_are_hunks_of_their_own() {
        let old: Vec<String> = (0..20).map(|n| n.to_string()).collect();
        let mut new = old.clone();
        new[2] = "two".to_owned();
        new.insert(18, "more".to_owned());
        assert_eq!(
            diff(&old.join("\n"), &new.join("\n")),
            "@@ -1,6 +1,6 @@\n 0\n 1\n-2\n+two\n 3\n 4\n 5\n@@ -16,5 +16,6 @@\n 15\n 16\n 17\n+more\n 18\n 19\n"
        );
    }

    #[test]
    fn the_longest_run_is_kept_rather_than_the_common_beginning() {
        assert_eq!(
            diff("a\nb", "a\nc\na\nb"),
            "@@ -1,2 +1,4 @@\n+a\n+c\n a\n b\n"
        );
    }
}
