//! Writes JSON objects field by field into a buffer: in the order that fields are told, empty text left out, no tree
//! in between. Escaping is serde_json's.

/// An object that is being written. It is closed by [`Object::end`].
#[derive(Debug)]
pub(crate) struct Object<'a> {
    out: &'a mut Vec<u8>,
    empty: bool,
}

/// Writes a JSON string.
pub(crate) fn string(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("text is written into memory");
}

impl<'a> Object<'a> {
    /// Begins one.
    pub(crate) fn begin(out: &'a mut Vec<u8>) -> Self {
        out.push(b'{');
        Self { out, empty: true }
    }

    /// Ends it.
    pub(crate) fn end(self) {
        self.out.push(b'}');
    }

    fn key(&mut self, name: &str) -> &mut Vec<u8> {
        if !self.empty {
            self.out.push(b',');
        }
        self.empty = false;
        string(self.out, name);
        self.out.push(b':');
        self.out
    }

    /// Text; nothing if it is empty.
    pub(crate) fn text(&mut self, name: &str, text: &str) -> &mut Self {
        if !text.is_empty() {
            string(self.key(name), text);
        }
        self
    }

    /// Whatever can be shown, as text.
    pub(crate) fn shown(&mut self, name: &str, value: impl std::fmt::Display) -> &mut Self {
        self.text(name, &value.to_string())
    }

    /// A number.
    pub(crate) fn number(&mut self, name: &str, number: u64) -> &mut Self {
        self.key(name).extend_from_slice(number.to_string().as_bytes());
        self
    }

    /// A number and what it stands for, as OCSF has them: `NAME_id` and `NAME`.
    pub(crate) fn word(&mut self, name: &str, (number, word): (u64, &str)) -> &mut Self {
        self.number(&format!("{name}_id"), number);
        self.text(name, word)
    }

    /// True or false.
    pub(crate) fn flag(&mut self, name: &str, flag: bool) -> &mut Self {
        self.key(name).extend_from_slice(if flag { b"true" } else { b"false" });
        self
    }

    /// An object; nothing if nothing is put into it.
    pub(crate) fn object(&mut self, name: &str, fill: impl FnOnce(&mut Object<'_>)) -> &mut Self {
        let (start, empty) = (self.out.len(), self.empty);
        let mut inner = Object::begin(self.key(name));
        fill(&mut inner);
        if inner.empty {
            self.out.truncate(start);
            self.empty = empty;
        } else {
            inner.end();
        }
        self
    }

    /// A list of objects; nothing if there are none.
    pub(crate) fn objects<T>(
        &mut self,
        name: &str,
        items: impl IntoIterator<Item = T>,
        mut fill: impl FnMut(&mut Object<'_>, T),
    ) -> &mut Self {
        let mut items = items.into_iter().peekable();
        if items.peek().is_none() {
            return self;
        }
        let out = self.key(name);
        out.push(b'[');
        for (index, item) in items.enumerate() {
            if index > 0 {
                out.push(b',');
            }
            let mut inner = Object::begin(out);
            fill(&mut inner, item);
            inner.end();
        }
        out.push(b']');
        self
    }

    /// A list of numbers; nothing if there are none.
    pub(crate) fn numbers(&mut self, name: &str, numbers: &[u64]) -> &mut Self {
        if !numbers.is_empty() {
            let list: Vec<String> = numbers.iter().map(u64::to_string).collect();
            self.key(name).extend_from_slice(format!("[{}]", list.join(",")).as_bytes());
        }
        self
    }

    /// A list of texts; nothing if there are none.
    pub(crate) fn texts<T: AsRef<str>>(&mut self, name: &str, items: impl IntoIterator<Item = T>) -> &mut Self {
        let mut items = items.into_iter().peekable();
        if items.peek().is_none() {
            return self;
        }
        let out = self.key(name);
        out.push(b'[');
        for (index, item) in items.enumerate() {
            if index > 0 {
                out.push(b',');
            }
            string(out, item.as_ref());
        }
        out.push(b']');
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_without_content_and_empty_texts_are_left_out() {
        let mut out = Vec::new();
        let mut object = Object::begin(&mut out);
        object
            .object("nothing", |it| {
                it.text("empty", "").texts("none", [""; 0]).objects("no", [0; 0], |_, _| {});
            })
            .text("quoted", "a\"b\n\u{1}")
            .object("inner", |it| {
                it.number("n", 7).flag("yes", true).word("action", (1, "Allowed"));
            })
            .objects("list", [1, 2], |it, n| {
                it.number("n", n);
            })
            .texts("texts", ["x", "y"])
            .shown("shown", 1.5);
        object.end();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(
            text,
            "{\"quoted\":\"a\\\"b\\n\\u0001\",\"inner\":{\"n\":7,\"yes\":true,\"action_id\":1,\"action\":\"Allowed\"},\
             \"list\":[{\"n\":1},{\"n\":2}],\"texts\":[\"x\",\"y\"],\"shown\":\"1.5\"}"
        );
        serde_json::from_str::<serde_json::Value>(&text).unwrap();
    }
}
