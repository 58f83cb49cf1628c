//! zonecfg's grammar: one command up to its terminator. Usage texts of incomplete commands, which the original prints
//! while parsing, are reported as [`Parsed::Usage`].

use super::lexer::{Lexer, Token};

/// A property's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// A word or quoted string.
    Simple(String),
    /// `(name=value,...)` in source order.
    Complex(Vec<(&'static str, String)>),
    /// `[value,...]`
    List(Vec<Value>),
}

/// A parsed command.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Command {
    /// The command word.
    pub name: &'static str,
    /// Words after it that are not names.
    pub args: Vec<String>,
    /// The resource type, or for `info` and `clear` the property.
    pub target: Option<&'static str>,
    /// `property=value` pairs, or the one pair of `add`, `remove` and `set`.
    pub pairs: Vec<(&'static str, Value)>,
}

/// The result of one call of the parser.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parsed {
    /// A command to run.
    Command(Command),
    /// An empty line.
    Nothing,
    /// An incomplete command whose usage is shown, and the lexer's line; the rest of the line is skipped.
    Usage(&'static str, u32),
    /// A syntax error at the token with this text (newline as `
    /// `), and the lexer's line; the rest of the line is skipped.
    Syntax(String, u32),
    /// The end of the input, with or without an unfinished command.
    Eof,
}

struct Fail;

/// Parses one command.
pub fn parse(lexer: &mut Lexer) -> Parsed {
    let mut p = Parser {
        lexer,
        ahead: None,
        usage: None,
    };
    match p.command() {
        Ok(parsed) => parsed,
        Err(Fail) => p.recover(),
    }
}

struct Parser<'a> {
    lexer: &'a mut Lexer,
    ahead: Option<Token>,
    usage: Option<&'static str>,
}

impl Parser<'_> {
    fn peek(&mut self) -> &Token {
        if self.ahead.is_none() {
            self.ahead = Some(self.lexer.next_token());
        }
        self.ahead.as_ref().unwrap_or(&Token::Eof)
    }

    fn next(&mut self) -> Token {
        match self.ahead.take() {
            Some(token) => token,
            None => self.lexer.next_token(),
        }
    }

    fn at_end(&mut self) -> bool {
        matches!(self.peek(), Token::Newline | Token::Semicolon)
    }

    /// Reports the failure and skips to the end of the command.
    fn recover(&mut self) -> Parsed {
        let usage = self.usage;
        let token = self.peek().clone();
        if usage.is_none() && token == Token::Eof {
            return Parsed::Eof;
        }
        let line = self.lexer.line;
        let text = match token {
            Token::Newline => "\\n".to_string(),
            _ => self.lexer.text.clone(),
        };
        // For yacc(1) a token that is not positive ends the input, such as a non-ASCII character in a signed char:
        // nothing is skipped.
        if let Token::Char(c) = token
            && !(1..0x80).contains(&c)
        {
            self.next();
            return Parsed::Syntax(text, line);
        }
        loop {
            match self.next() {
                Token::Newline | Token::Semicolon | Token::Eof => break,
                _ => {}
            }
        }
        match usage {
            Some(command) => Parsed::Usage(command, line),
            None => Parsed::Syntax(text, line),
        }
    }

    fn command(&mut self) -> Result<Parsed, Fail> {
        let name = match self.peek().clone() {
            Token::Newline | Token::Semicolon => {
                self.next();
                return Ok(Parsed::Nothing);
            }
            Token::Eof => return Ok(Parsed::Eof),
            Token::Command(name) => name,
            _ => return Err(Fail),
        };
        self.next();
        let mut command = Command {
            name,
            ..Command::default()
        };
        match name {
            "create" => self.words(&mut command, 3),
            "export" => self.words(&mut command, 2),
            "add" => self.add(&mut command)?,
            "info" => self.info(&mut command)?,
            "remove" => self.remove(&mut command)?,
            "select" => self.select(&mut command)?,
            "set" => self.set(&mut command)?,
            "clear" => match self.peek().clone() {
                Token::Property(p) => {
                    self.next();
                    command.target = Some(p);
                }
                _ => return self.short("clear"),
            },
            _ => self.words(&mut command, 1),
        }
        if !self.at_end() {
            return Err(Fail);
        }
        self.next();
        Ok(Parsed::Command(command))
    }

    /// An incomplete command: its usage instead of a syntax error, unless the input ends here.
    fn short<T>(&mut self, command: &'static str) -> Result<T, Fail> {
        self.usage = Some(command);
        Err(Fail)
    }

    fn words(&mut self, command: &mut Command, most: usize) {
        while command.args.len() < most {
            let Token::Word(word) = self.peek().clone() else {
                return;
            };
            self.next();
            command.args.push(word);
        }
    }

    fn add(&mut self, command: &mut Command) -> Result<(), Fail> {
        match self.peek().clone() {
            Token::Word(word) => {
                self.next();
                command.args.push(word);
            }
            Token::Resource(r) => {
                self.next();
                command.target = Some(r);
            }
            Token::Property(p) => {
                self.next();
                let value = self.value()?;
                command.pairs.push((p, value));
            }
            _ => return self.short("add"),
        }
        Ok(())
    }

    fn info(&mut self, command: &mut Command) -> Result<(), Fail> {
        match self.peek().clone() {
            Token::Word(_) => {
                // Reduced without lookahead: the line has not been counted yet.
                return self.short("info");
            }
            Token::Property(p) if INFO_PROPERTIES.contains(&p) => {
                self.next();
                command.target = Some(p);
            }
            Token::Resource(r) => {
                self.next();
                command.target = Some(r);
                self.pairs(command)?;
            }
            _ => {}
        }
        Ok(())
    }

    fn remove(&mut self, command: &mut Command) -> Result<(), Fail> {
        match self.peek().clone() {
            Token::Property(p) => {
                self.next();
                let value = self.value()?;
                command.pairs.push((p, value));
                return Ok(());
            }
            Token::Word(word) => {
                self.next();
                command.args.push(word);
                let Token::Resource(r) = self.peek().clone() else {
                    return self.short("remove");
                };
                self.next();
                command.target = Some(r);
                return Ok(());
            }
            Token::Resource(r) => {
                self.next();
                command.target = Some(r);
            }
            _ => return self.short("remove"),
        }
        self.pairs(command)
    }

    fn select(&mut self, command: &mut Command) -> Result<(), Fail> {
        let Token::Resource(r) = self.peek().clone() else {
            return self.short("select");
        };
        self.next();
        command.target = Some(r);
        let alone = matches!(r, "dedicated-cpu" | "capped-cpu" | "capped-memory");
        let ends = alone && self.at_end();
        if !ends && !matches!(self.peek(), Token::Property(_)) {
            return self.short("select");
        }
        self.pairs(command)
    }

    fn set(&mut self, command: &mut Command) -> Result<(), Fail> {
        let property = match self.peek().clone() {
            Token::Property(p) => {
                self.next();
                p
            }
            Token::Word(word) => {
                self.next();
                command.args.push(word);
                if *self.peek() != Token::Property("zonepath") {
                    return Err(Fail);
                }
                self.next();
                "zonepath"
            }
            _ => return self.short("set"),
        };
        self.expect(&Token::Equal)?;
        let value = self.value_or_empty_list(true)?;
        command.pairs.push((property, value));
        Ok(())
    }

    fn pairs(&mut self, command: &mut Command) -> Result<(), Fail> {
        while command.pairs.len() < 3 {
            let Token::Property(p) = self.peek().clone() else {
                break;
            };
            self.next();
            self.expect(&Token::Equal)?;
            let value = self.value()?;
            command.pairs.push((p, value));
        }
        Ok(())
    }

    fn expect(&mut self, token: &Token) -> Result<(), Fail> {
        if self.peek() != token {
            return Err(Fail);
        }
        self.next();
        Ok(())
    }

    fn value(&mut self) -> Result<Value, Fail> {
        self.value_or_empty_list(false)
    }

    fn value_or_empty_list(&mut self, empty: bool) -> Result<Value, Fail> {
        match self.peek().clone() {
            Token::OpenBracket => {
                self.next();
                if empty && *self.peek() == Token::CloseBracket {
                    self.next();
                    return Ok(Value::List(Vec::new()));
                }
                let mut items = Vec::new();
                loop {
                    items.push(match self.peek() {
                        Token::OpenParen => self.complex()?,
                        _ => Value::Simple(self.simple()?),
                    });
                    match self.peek() {
                        Token::Comma => {
                            self.next();
                        }
                        Token::CloseBracket => {
                            self.next();
                            return Ok(Value::List(items));
                        }
                        _ => return Err(Fail),
                    }
                }
            }
            Token::OpenParen => self.complex(),
            _ => Ok(Value::Simple(self.simple()?)),
        }
    }

    fn simple(&mut self) -> Result<String, Fail> {
        let text = match self.peek().clone() {
            Token::Word(word) => word,
            Token::Resource(name) | Token::Property(name) => name.to_string(),
            _ => return Err(Fail),
        };
        self.next();
        Ok(text)
    }

    fn complex(&mut self) -> Result<Value, Fail> {
        self.expect(&Token::OpenParen)?;
        let mut pieces = Vec::new();
        loop {
            let Token::Property(p) = self.peek().clone() else {
                return Err(Fail);
            };
            self.next();
            self.expect(&Token::Equal)?;
            pieces.push((p, self.simple()?));
            match self.peek() {
                Token::Comma => {
                    self.next();
                }
                Token::CloseParen => {
                    self.next();
                    return Ok(Value::Complex(pieces));
                }
                _ => return Err(Fail),
            }
        }
    }
}

/// Global properties that `info` takes by name.
const INFO_PROPERTIES: &[&str] = &[
    "zonename",
    "zonepath",
    "brand",
    "autoboot",
    "ip-type",
    "pool",
    "limitpriv",
    "bootargs",
    "scheduling-class",
    "cpu-shares",
    "max-lwps",
    "max-processes",
    "max-shm-memory",
    "max-shm-ids",
    "max-msg-ids",
    "max-sem-ids",
    "hostid",
    "fs-allowed",
    "zfs-io-priority",
];
