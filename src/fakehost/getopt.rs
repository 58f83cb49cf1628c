//! getopt(3C): options end at the first word that is none.

/// What a command line says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Parsed {
    options: Vec<(char, Option<String>)>,
    /// The words after the options.
    pub rest: Vec<String>,
}

/// What is wrong with a command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bad {
    /// No such option.
    Unknown(char),
    /// The option's argument is missing.
    Argument(char),
}

/// As getopt(3C) tells it, after the tool's name.
impl std::fmt::Display for Bad {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Bad::Unknown(letter) => write!(f, "illegal option -- {letter}"),
            Bad::Argument(letter) => write!(f, "option requires an argument -- {letter}"),
        }
    }
}

impl Parsed {
    /// Whether an option is there.
    pub fn has(&self, letter: char) -> bool {
        self.options.iter().any(|(l, _)| *l == letter)
    }
    /// The last argument of an option.
    pub fn value(&self, letter: char) -> Option<&str> {
        self.values(letter).last()
    }
    /// All arguments of an option.
    pub fn values(&self, letter: char) -> impl Iterator<Item = &str> {
        self.options
            .iter()
            .filter(move |(l, _)| *l == letter)
            .filter_map(|(_, v)| v.as_deref())
    }
}

/// Reads a command line; a `:` after a letter of `known` says that it takes an argument. Long options are spelled
/// out in `long`, each with the letter that it stands for.
pub fn getopt(args: &[String], known: &str, long: &[(&str, char)]) -> Result<Parsed, Bad> {
    let takes = |letter: char| {
        let mut letters = known.chars().peekable();
        while let Some(l) = letters.next() {
            if l == letter && l != ':' {
                return Some(letters.peek() == Some(&':'));
            }
        }
        None
    };
    let mut parsed = Parsed::default();
    let mut words = args.iter();
    while let Some(word) = words.next() {
        if word == "--" {
            parsed.rest = words.cloned().collect();
            return Ok(parsed);
        }
        if let Some(name) = word.strip_prefix("--") {
            let (name, inline) = match name.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (name, None),
            };
            let letter = long
                .iter()
                .find(|(l, _)| *l == name)
                .map(|(_, letter)| *letter)
                .ok_or(Bad::Unknown('?'))?;
            let value = match (takes(letter), inline) {
                (Some(true), Some(value)) => Some(value),
                (Some(true), None) => Some(words.next().ok_or(Bad::Argument(letter))?.clone()),
                _ => None,
            };
            parsed.options.push((letter, value));
            continue;
        }
        let Some(letters) = word.strip_prefix('-').filter(|l| !l.is_empty()) else {
            parsed.rest = std::iter::once(word).chain(words).cloned().collect();
            return Ok(parsed);
        };
        for (at, letter) in letters.char_indices() {
            if !takes(letter).ok_or(Bad::Unknown(letter))? {
                parsed.options.push((letter, None));
                continue;
            }
            let tail = &letters[at + letter.len_utf8()..];
            let value = if tail.is_empty() {
                words.next().ok_or(Bad::Argument(letter))?.clone()
            } else {
                tail.to_owned()
            };
            parsed.options.push((letter, Some(value)));
            break;
        }
    }
    Ok(parsed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn options_end_at_the_first_word_and_arguments_may_be_joined() {
        let parsed = getopt(&words("-Hpo name -d1 tank -r"), "Hpo:d:r", &[]).unwrap();
        assert!(parsed.has('H') && parsed.has('p') && !parsed.has('r'));
        assert_eq!(parsed.value('o'), Some("name"));
        assert_eq!(parsed.value('d'), Some("1"));
        assert_eq!(parsed.rest, words("tank -r"));
        assert_eq!(getopt(&words("-x"), "H", &[]), Err(Bad::Unknown('x')));
        assert_eq!(getopt(&words("-o"), "o:", &[]), Err(Bad::Argument('o')));
        let long = getopt(&words("--link=a0 -- -t"), "l:t", &[("link", 'l')]).unwrap();
        assert_eq!(long.value('l'), Some("a0"));
        assert_eq!(long.rest, words("-t"));
    }
}
