//! getopt(3C): options end at the first word that is not one.

/// A parsed command line.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Parsed {
    options: Vec<(char, Option<String>)>,
    /// The words after the options.
    pub rest: Vec<String>,
}

/// Why a command line is invalid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bad {
    /// No such option.
    Unknown(char),
    /// No such long option.
    Long(String),
    /// The option's argument is missing.
    Argument(char),
}

/// The words of getopt(3C), to be printed after the tool's name.
impl std::fmt::Display for Bad {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Bad::Unknown(letter) => write!(f, "illegal option -- {letter}"),
            Bad::Long(name) => write!(f, "illegal option -- {name}"),
            Bad::Argument(letter) => write!(f, "option requires an argument -- {letter}"),
        }
    }
}

impl Bad {
    /// The letter that getopt(3C) leaves in `optopt`.
    pub fn letter(&self) -> char {
        match self {
            Bad::Unknown(letter) | Bad::Argument(letter) => *letter,
            Bad::Long(_) => '-',
        }
    }
}

impl Parsed {
    /// Whether an option was given.
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

/// Parses options one by one; it can continue after an invalid one.
#[derive(Debug)]
pub struct Options<'a> {
    words: &'a [String],
    known: &'a str,
    long: &'a [(&'a str, char)],
    /// The letters of the current word that have not been parsed yet.
    letters: &'a str,
}

impl<'a> Options<'a> {
    /// Parses `words`; a `:` after a letter of `known` means that the option takes an argument. `long` contains long
    /// options, each with the corresponding letter.
    pub fn new(words: &'a [String], known: &'a str, long: &'a [(&'a str, char)]) -> Self {
        Self {
            words,
            known,
            long,
            letters: "",
        }
    }

    /// The words after the options, once all options have been parsed.
    pub fn rest(&self) -> &'a [String] {
        self.words
    }

    /// Whether an option takes an argument; `None` if it is unknown.
    fn takes(&self, letter: char) -> Option<bool> {
        let at = self.known.find(letter).filter(|_| letter != ':')?;
        Some(self.known[at + letter.len_utf8()..].starts_with(':'))
    }

    fn argument(&mut self, letter: char) -> Result<String, Bad> {
        let (value, words) = self.words.split_first().ok_or(Bad::Argument(letter))?;
        self.words = words;
        Ok(value.clone())
    }

    fn spelled(&mut self, word: &str) -> Result<(char, Option<String>), Bad> {
        let (name, inline) = match word.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (word, None),
        };
        let found = self.long.iter().find(|(l, _)| *l == name);
        let letter = found.ok_or_else(|| Bad::Long(word.to_owned()))?.1;
        let value = match (self.takes(letter), inline) {
            (Some(true), Some(value)) => Some(value),
            (Some(true), None) => Some(self.argument(letter)?),
            _ => None,
        };
        Ok((letter, value))
    }
}

impl Iterator for Options<'_> {
    type Item = Result<(char, Option<String>), Bad>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.letters.is_empty() {
            let (word, words) = self.words.split_first()?;
            let letters = word.strip_prefix('-').filter(|l| !l.is_empty())?;
            self.words = words;
            match letters.strip_prefix('-') {
                Some("") => return None,
                Some(name) => return Some(self.spelled(name)),
                None => self.letters = letters,
            }
        }
        let letter = self.letters.chars().next()?;
        self.letters = &self.letters[letter.len_utf8()..];
        Some(match self.takes(letter) {
            None => Err(Bad::Unknown(letter)),
            Some(false) => Ok((letter, None)),
            Some(true) => match std::mem::take(&mut self.letters) {
                "" => self.argument(letter).map(|value| (letter, Some(value))),
                tail => Ok((letter, Some(tail.to_owned()))),
            },
        })
    }
}

/// Parses a whole command line like [`Options`], up to the first invalid option.
pub fn getopt(args: &[String], known: &str, long: &[(&str, char)]) -> Result<Parsed, Bad> {
    let mut options = Options::new(args, known, long);
    let read = options.by_ref().collect::<Result<_, _>>()?;
    Ok(Parsed {
        options: read,
        rest: options.rest().to_vec(),
    })
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
        assert_eq!(
            getopt(&words("--xy"), "H", &[]),
            Err(Bad::Long("xy".into()))
        );
        assert_eq!(getopt(&words("-o"), "o:", &[]), Err(Bad::Argument('o')));
        let long = getopt(&words("--link=a0 -- -t"), "l:t", &[("link", 'l')]).unwrap();
        assert_eq!(long.value('l'), Some("a0"));
        assert_eq!(long.rest, words("-t"));
    }

    #[test]
    fn options_are_read_on_after_a_wrong_one() {
        let line = words("-aF -é --force -f out - x");
        let mut options = Options::new(&line, "Ff:", &[]);
        let read: Vec<_> = options.by_ref().collect();
        assert_eq!(
            read,
            [
                Err(Bad::Unknown('a')),
                Ok(('F', None)),
                Err(Bad::Unknown('é')),
                Err(Bad::Long("force".into())),
                Ok(('f', Some("out".into()))),
            ]
        );
        assert_eq!(options.rest(), words("- x"));
    }
}
