//! zonecfg's lexer: four states as in `zonecfg_lex.l`. In the initial state only command words are known; after one,
//! words are resource types, property names or tokens; inside `[ ]` commas separate and words are plain; inside `( )`
//! words are names again.

use super::Flavour;

/// What the lexer returns. Lines are counted when a newline is returned as [`Token::Newline`];
/// a newline swallowed by an unterminated quotation is not counted, as in the original.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Token {
    /// A command word.
    Command(&'static str),
    /// A resource type.
    Resource(&'static str),
    /// A property name.
    Property(&'static str),
    /// Any other word, or a quoted value without its quotes.
    Word(String),
    /// `=`
    Equal,
    /// `[`
    OpenBracket,
    /// `]`
    CloseBracket,
    /// `(`
    OpenParen,
    /// `)`
    CloseParen,
    /// `,` inside brackets or parentheses.
    Comma,
    /// End of a command.
    Newline,
    /// End of a command on the same line.
    Semicolon,
    /// A character that no rule matches.
    Char(u8),
    /// End of input.
    Eof,
}

const COMMANDS: &[(&str, &str)] = &[
    ("add", "add"),
    ("cancel", "cancel"),
    ("commit", "commit"),
    ("create", "create"),
    ("delete", "delete"),
    ("end", "end"),
    ("exit", "exit"),
    ("export", "export"),
    ("?", "help"),
    ("help", "help"),
    ("info", "info"),
    ("remove", "remove"),
    ("revert", "revert"),
    ("select", "select"),
    ("set", "set"),
    ("clear", "clear"),
    ("verify", "verify"),
];

const RESOURCES: &[&str] = &[
    "net",
    "fs",
    "device",
    "rctl",
    "attr",
    "admin",
    "security-flags",
    "dataset",
    "dedicated-cpu",
    "capped-cpu",
    "capped-memory",
];

const PROPERTIES: &[&str] = &[
    "zonename",
    "zonepath",
    "brand",
    "autoboot",
    "ip-type",
    "pool",
    "limitpriv",
    "bootargs",
    "type",
    "value",
    "options",
    "allowed-address",
    "address",
    "physical",
    "defrouter",
    "dir",
    "special",
    "raw",
    "name",
    "match",
    "priv",
    "limit",
    "action",
    "ncpus",
    "locked",
    "swap",
    "importance",
    "cpu-shares",
    "max-lwps",
    "max-processes",
    "max-shm-memory",
    "max-shm-ids",
    "max-msg-ids",
    "max-sem-ids",
    "scheduling-class",
    "hostid",
    "user",
    "auths",
    "fs-allowed",
    "default",
    "lower",
    "upper",
];

/// Words that illumos-gate of 2022 does not have.
const OMNIOS_PROPERTIES: &[&str] = &[
    "mac-addr",
    "vlan-id",
    "global-nic",
    "property",
    "zfs-io-priority",
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Initial,
    Words,
    List,
    Complex,
}

/// The lexer over one input.
#[derive(Debug)]
pub struct Lexer {
    input: Vec<u8>,
    at: usize,
    state: State,
    /// The state to which `)` returns; kept apart from `state` as in the original.
    outer: State,
    flavour: Flavour,
    /// The line number of the next character, from 1.
    pub line: u32,
    /// The text of the last token, for messages.
    pub text: String,
    /// Whether the end of the input has been read.
    pub eof: bool,
}

impl Lexer {
    /// A lexer at the start of `input`.
    pub fn new(input: &[u8], flavour: Flavour) -> Self {
        Self {
            input: input.to_vec(),
            at: 0,
            state: State::Initial,
            outer: State::Initial,
            flavour,
            line: 1,
            text: String::new(),
            eof: false,
        }
    }

    fn peek(&self) -> Option<u8> {
        self.input.get(self.at).copied()
    }

    fn take(&mut self, n: usize) -> String {
        let end = (self.at + n).min(self.input.len());
        let text = String::from_utf8_lossy(&self.input[self.at..end]).into_owned();
        self.at = end;
        self.text = text.clone();
        text
    }

    fn enter(&mut self, state: State) {
        self.state = state;
        self.outer = state;
    }

    /// The next token.
    pub fn next_token(&mut self) -> Token {
        loop {
            let Some(c) = self.peek() else {
                self.eof = true;
                self.text.clear();
                return Token::Eof;
            };
            match c {
                b' ' | b'\t' => {
                    self.at += 1;
                }
                b'#' if self.state == State::Initial => {
                    while self.peek().is_some_and(|c| c != b'\n') {
                        self.at += 1;
                    }
                }
                b'\n' => {
                    self.take(1);
                    self.line += 1;
                    self.state = State::Initial;
                    return Token::Newline;
                }
                b';' => {
                    self.take(1);
                    self.state = State::Initial;
                    return Token::Semicolon;
                }
                _ => return self.significant(c),
            }
        }
    }

    fn significant(&mut self, c: u8) -> Token {
        if self.state == State::Initial {
            let rest = &self.input[self.at..];
            let word = COMMANDS
                .iter()
                .filter(|(w, _)| rest.starts_with(w.as_bytes()))
                .max_by_key(|(w, _)| w.len());
            if let Some((word, command)) = word {
                self.take(word.len());
                self.enter(State::Words);
                return Token::Command(command);
            }
            self.take(1);
            return Token::Char(c);
        }
        match (c, self.state) {
            (b'=', _) => {
                self.take(1);
                return Token::Equal;
            }
            (b'[', State::Words) => {
                self.take(1);
                self.enter(State::List);
                return Token::OpenBracket;
            }
            (b']', State::List) => {
                self.take(1);
                self.enter(State::Words);
                return Token::CloseBracket;
            }
            (b'(', State::Words | State::List) => {
                self.take(1);
                self.state = State::Complex;
                return Token::OpenParen;
            }
            (b')', State::Complex) => {
                self.take(1);
                self.state = self.outer;
                return Token::CloseParen;
            }
            (b',', State::List | State::Complex) => {
                self.take(1);
                return Token::Comma;
            }
            (b'"', state) if state != State::Complex || self.flavour == Flavour::Omnios => {
                if let Some(token) = self.quoted() {
                    return token;
                }
            }
            _ => {}
        }
        self.word(c)
    }

    /// A quoted value: up to the closing quote, or to the end of the line, whose newline is part of the value then.
    fn quoted(&mut self) -> Option<Token> {
        let rest = &self.input[self.at + 1..];
        let end = rest.iter().position(|c| *c == b'"' || *c == b'\n')?;
        let closed = rest[end] == b'"';
        let keep = if closed { end } else { end + 1 };
        let value = String::from_utf8_lossy(&rest[..keep]).into_owned();
        self.take(end + 2);
        Some(Token::Word(value))
    }

    fn word(&mut self, c: u8) -> Token {
        let stops: &[u8] = match self.state {
            State::Words => b" \t\n\";=[]()",
            State::List => b" \t\n\",;=[]()",
            _ => b" \t\n\",;=()",
        };
        let len = self.input[self.at..]
            .iter()
            .position(|c| stops.contains(c))
            .unwrap_or(self.input.len() - self.at);
        if len == 0 {
            self.take(1);
            return Token::Char(c);
        }
        let text = self.take(len);
        if self.state == State::List {
            return Token::Word(text);
        }
        let resources: &[&str] = if self.state == State::Words {
            RESOURCES
        } else {
            &[]
        };
        let extra: &[&str] = match self.flavour {
            Flavour::Omnios => OMNIOS_PROPERTIES,
            Flavour::Gate => &[],
        };
        if let Some(name) = resources.iter().find(|n| **n == text) {
            return Token::Resource(name);
        }
        match PROPERTIES.iter().chain(extra).find(|n| **n == text) {
            Some(name) => Token::Property(name),
            None => Token::Word(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &str) -> Vec<Token> {
        let mut lexer = Lexer::new(text.as_bytes(), Flavour::Omnios);
        let mut out = Vec::new();
        loop {
            let token = lexer.next_token();
            if token == Token::Eof {
                return out;
            }
            out.push(token);
        }
    }

    #[test]
    fn a_command_word_is_known_by_its_beginning_only_in_the_initial_state() {
        assert_eq!(
            all("addnet\n"),
            [
                Token::Command("add"),
                Token::Resource("net"),
                Token::Newline
            ]
        );
        assert_eq!(
            all("set name=net"),
            [
                Token::Command("set"),
                Token::Property("name"),
                Token::Equal,
                Token::Resource("net")
            ]
        );
    }

    #[test]
    fn an_unterminated_quotation_takes_the_newline_along() {
        assert_eq!(
            all("set bootargs=\"a\ncommit\n"),
            [
                Token::Command("set"),
                Token::Property("bootargs"),
                Token::Equal,
                Token::Word("a\n".into()),
                Token::Word("commit".into()),
                Token::Newline
            ]
        );
    }
}
