//! A job's data, taken apart once, each value with the text that it was written as.
//!
//! It promises to copy no text that is not escaped, so that looking into a megabyte costs one walk over it, and that a value which is
//! passed on is passed on byte for byte: a number of thirty digits keeps them, and `1.10` its zero. What stands in the text is the
//! [JSON gate](crate::json)'s affair: here it is JSON already. What expressions make of values is unknown here.

/// One value of the data, alive as long as the text.
#[derive(Debug)]
pub enum Datum<'t> {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number, as it is written.
    Number(&'t str),
    /// A string.
    Text(Text<'t>),
    /// A list.
    List(Box<Items<'t>>),
    /// An object.
    Map(Box<Members<'t>>),
}

/// A string.
#[derive(Debug)]
pub enum Text<'t> {
    /// As it is written, with its quotes: nothing in it is escaped.
    Plain(&'t str),
    Escaped(Box<Escaped<'t>>),
}

/// A string in which something is escaped.
#[derive(Debug)]
pub struct Escaped<'t> {
    written: &'t str,
    read: String,
}

/// A list.
#[derive(Debug)]
pub struct Items<'t> {
    pub written: &'t str,
    /// How many lists and objects it is deep, itself included.
    pub levels: usize,
    items: Vec<Datum<'t>>,
}

/// An object, its members in the order in which they stand.
#[derive(Debug)]
pub struct Members<'t> {
    pub written: &'t str,
    /// How many lists and objects it is deep, itself included.
    pub levels: usize,
    members: Vec<(Text<'t>, Datum<'t>)>,
    /// The places of the members, ordered by key; empty while there are few.
    by_key: Vec<usize>,
}

impl<'t> Datum<'t> {
    /// Takes a JSON text apart; `None` when it is none.
    pub fn read(text: &'t str) -> Option<Self> {
        let mut reader = Reader { text, at: 0 };
        let datum = reader.value()?;
        reader.skip_space();
        (reader.at == text.len()).then_some(datum)
    }

    /// How many lists and objects it is deep.
    pub fn levels(&self) -> usize {
        match self {
            Datum::List(items) => items.levels,
            Datum::Map(members) => members.levels,
            _ => 0,
        }
    }

    /// It as it stands in the text.
    pub fn written(&self) -> &'t str {
        match self {
            Datum::Null => "null",
            Datum::Bool(true) => "true",
            Datum::Bool(false) => "false",
            Datum::Number(written) => written,
            Datum::Text(text) => text.written(),
            Datum::List(items) => items.written,
            Datum::Map(members) => members.written,
        }
    }
}

impl<'t> Items<'t> {
    pub fn len(&self) -> usize {
        self.items.len()
    }

    pub fn get(&self, index: usize) -> Option<&Datum<'t>> {
        self.items.get(index)
    }
}

impl<'t> Members<'t> {
    /// Members of an object up to which one after the other is compared.
    const FEW: usize = 16;

    fn new(written: &'t str, levels: usize, members: Vec<(Text<'t>, Datum<'t>)>) -> Self {
        let mut by_key = Vec::new();
        if members.len() > Self::FEW {
            by_key.extend(0..members.len());
            by_key.sort_unstable_by_key(|&place| members[place].0.as_str());
        }
        Self { written, levels, members, by_key }
    }

    pub fn len(&self) -> usize {
        self.members.len()
    }

    pub fn get(&self, key: &str) -> Option<&Datum<'t>> {
        if self.by_key.is_empty() {
            return self.iter().find(|(known, _)| *known == key).map(|(_, value)| value);
        }
        let found = self.by_key.binary_search_by_key(&key, |&place| self.members[place].0.as_str()).ok()?;
        Some(&self.members[self.by_key[found]].1)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &Datum<'t>)> {
        self.members.iter().map(|(key, value)| (key.as_str(), value))
    }
}

impl<'t> Text<'t> {
    /// What it says.
    pub fn as_str(&self) -> &str {
        match self {
            Text::Plain(written) => &written[1..written.len() - 1],
            Text::Escaped(escaped) => &escaped.read,
        }
    }

    fn written(&self) -> &'t str {
        match self {
            Text::Plain(written) => written,
            Text::Escaped(escaped) => escaped.written,
        }
    }
}

/// Where the reading is.
struct Reader<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Reader<'t> {
    /// The value that begins here.
    fn value(&mut self) -> Option<Datum<'t>> {
        self.skip_space();
        match self.peek()? {
            b'"' => self.string().map(Datum::Text),
            b'{' => self.map(),
            b'[' => self.list(),
            b'n' => self.word("null", Datum::Null),
            b't' => self.word("true", Datum::Bool(true)),
            b'f' => self.word("false", Datum::Bool(false)),
            _ => self.number().map(Datum::Number),
        }
    }

    fn map(&mut self) -> Option<Datum<'t>> {
        let (mut members, mut below) = (Vec::new(), 0);
        let written = self.between(b'}', |reader| {
            reader.skip_space();
            let key = reader.string()?;
            reader.skip_space();
            reader.take(b':').then_some(())?;
            let value = reader.value()?;
            below = below.max(value.levels());
            members.push((key, value));
            Some(())
        })?;
        Some(Datum::Map(Box::new(Members::new(written, below + 1, members))))
    }

    fn list(&mut self) -> Option<Datum<'t>> {
        let (mut items, mut below) = (Vec::new(), 0);
        let written = self.between(b']', |reader| {
            let item = reader.value()?;
            below = below.max(item.levels());
            items.push(item);
            Some(())
        })?;
        Some(Datum::List(Box::new(Items { written, levels: below + 1, items })))
    }

    /// Reads from the bracket that opens here to the one that closes, one element after the other. Returns all of it.
    fn between(&mut self, close: u8, mut element: impl FnMut(&mut Self) -> Option<()>) -> Option<&'t str> {
        let start = self.at;
        self.at += 1;
        self.skip_space();
        if !self.take(close) {
            loop {
                element(self)?;
                self.skip_space();
                if !self.take(b',') {
                    break;
                }
            }
            self.take(close).then_some(())?;
        }
        Some(&self.text[start..self.at])
    }

    fn string(&mut self) -> Option<Text<'t>> {
        let start = self.at;
        self.take(b'"').then_some(())?;
        let mut escapes = false;
        loop {
            let rest = &self.text.as_bytes()[self.at..];
            let found = memchr::memchr2(b'"', b'\\', rest)?;
            self.at += found + 1;
            if rest[found] == b'"' {
                break;
            }
            // Whatever is escaped, it is one byte at least, and not the end.
            escapes = true;
            self.at += 1;
            self.text.as_bytes().get(self.at)?;
        }
        let written = &self.text[start..self.at];
        if !escapes {
            return Some(Text::Plain(written));
        }
        let read = serde_json::from_str(written).ok()?;
        Some(Text::Escaped(Box::new(Escaped { written, read })))
    }

    fn number(&mut self) -> Option<&'t str> {
        let start = self.at;
        let is_part = |byte: &u8| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E');
        self.at += self.text.as_bytes()[start..].iter().take_while(|byte| is_part(byte)).count();
        (self.at > start).then(|| &self.text[start..self.at])
    }

    fn word(&mut self, word: &str, datum: Datum<'t>) -> Option<Datum<'t>> {
        self.text[self.at..].starts_with(word).then(|| {
            self.at += word.len();
            datum
        })
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.at += 1;
        }
    }

    fn take(&mut self, byte: u8) -> bool {
        let is_there = self.peek() == Some(byte);
        self.at += usize::from(is_there);
        is_there
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// The value as somebody else reads it.
    fn value_of(datum: &Datum<'_>) -> Value {
        match datum {
            Datum::Null => Value::Null,
            Datum::Bool(value) => Value::Bool(*value),
            Datum::Number(written) => serde_json::from_str(written).unwrap(),
            Datum::Text(text) => Value::from(text.as_str()),
            Datum::List(items) => items.items.iter().map(value_of).collect(),
            Datum::Map(members) => {
                Value::Object(members.iter().map(|(key, value)| (key.to_owned(), value_of(value))).collect())
            }
        }
    }

    #[track_caller]
    fn is_read(text: &str) -> Datum<'_> {
        let datum = Datum::read(text).unwrap_or_else(|| panic!("{text}"));
        assert_eq!(value_of(&datum), serde_json::from_str::<Value>(text).unwrap(), "{text}");
        assert_eq!(datum.written(), text.trim());
        datum
    }

    #[test]
    fn every_kind_of_value_is_read_as_it_is_written() {
        for text in [
            "null",
            "true",
            " false\n",
            "-1.50E+3",
            "123456789012345678901234567890",
            "\"\"",
            "\"é😀 {}[],:\"",
            r#""\\""#,
            r#""a\"b\\\u00e9\ud83d\ude00\/""#,
            "[]",
            " [ ] ",
            "{}",
            "{ }",
            " [ 1 , [ \"a\" , { } ] , null ] ",
            r#"{ "a" : { "b\n" : [ 1.10 ] } , "" : "\u0061" }"#,
        ] {
            is_read(text);
        }
    }

    #[test]
    fn levels_are_counted() {
        for (text, levels) in
            [("1", 0), ("\"[\"", 0), ("[]", 1), ("[[1], 2]", 2), (r#"{"a": [{"b": 1}], "c": {}}"#, 3)]
        {
            assert_eq!(is_read(text).levels(), levels, "{text}");
        }
    }

    #[test]
    fn members_are_found_among_few_and_many() {
        for count in [0, 1, Members::FEW, Members::FEW + 1, 500] {
            let members: Vec<String> = (0..count).map(|n| format!("\"k\\u{:04x}\":{n}", 0x100 + n)).collect();
            let text = format!("{{{}}}", members.join(","));
            let Datum::Map(members) = is_read(&text) else { panic!("{text} is an object") };
            assert_eq!(members.len(), count);
            for n in 0..count {
                let key = format!("k{}", char::from_u32(0x100 + n as u32).unwrap());
                assert_eq!(members.get(&key).map(Datum::written), Some(&*n.to_string()));
            }
            assert!(members.get("k").is_none());
        }
    }

    #[test]
    fn what_is_no_json_is_nothing() {
        for text in [
            "",
            " ",
            "{",
            "[",
            "\"",
            "\"\\",
            "\"\\\"",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1,}",
            "{1:2}",
            "[1,]",
            "[1 2]",
            "1 2",
            "nul",
            "tru",
            "é",
            "\"\\x\"",
        ] {
            assert!(Datum::read(text).is_none(), "{text}");
        }
    }

    #[test]
    fn a_value_is_small() {
        // A payload of a megabyte may hold half a million of them.
        assert!(size_of::<Datum<'_>>() <= 24);
        assert_eq!(value_of(&Datum::Bool(true)), json!(true));
    }
}
