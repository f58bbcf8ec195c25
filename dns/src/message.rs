//! Bytes to a message, by the crate `domain`; what is kept of it is bounded. A message whose end is missing is read as far
//! as it goes.

use std::{fmt::Write as _, net::IpAddr};

use domain::{
    base::{Message as Wire, ParsedName, iana::Opcode, iana::Rtype, record::ParsedRecord},
    rdata::{A, Aaaa, AllRecordData, Cname},
};

use crate::lookup::{Data, MOST_RECORDS, MOST_TEXT, Question, Record};

/// What is kept of a message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Message {
    /// Number that an answer has from its question.
    pub id: u16,
    /// Whether it is an answer.
    pub is_answer: bool,
    /// Response code, extended by EDNS.
    pub rcode: u16,
    /// Second word of the header.
    pub flags: u16,
    /// What is asked.
    pub question: Question,
    /// Records of the answer section, at most [`MOST_RECORDS`].
    pub records: Vec<Record>,
    /// How many of them the header announces.
    pub announced: u16,
    /// It could not be read to the end of its answer section.
    pub cut: bool,
    /// Addresses that belong to the name that was asked for, by way of its aliases, and how long that holds, seconds.
    pub resolved: Vec<(IpAddr, u32)>,
}

/// Why there is no message.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Unreadable {
    /// No header.
    #[error("shorter than the header")]
    Short,
    /// Not a question, nor an answer to one: an update, a notification.
    #[error("not a query")]
    OtherOpcode,
    /// None, or several, which nobody answers (RFC 9619).
    #[error("not one question")]
    NotOneQuestion,
    /// The question cannot be read.
    #[error("broken question")]
    Question,
}

/// Reads a message. `whole`: these are all of its bytes.
///
/// # Errors
/// It has no header, no readable question, or is about something else.
pub fn parse(bytes: &[u8], whole: bool) -> Result<Message, Unreadable> {
    let wire = Wire::from_slice(bytes).map_err(|_| Unreadable::Short)?;
    let (header, counts) = (wire.header(), wire.header_counts());
    if header.opcode() != Opcode::QUERY {
        return Err(Unreadable::OtherOpcode);
    }
    if counts.qdcount() != 1 {
        return Err(Unreadable::NotOneQuestion);
    }
    let asked = wire.question().next().and_then(Result::ok).ok_or(Unreadable::Question)?;
    let question = Question {
        name: name_text(asked.qname()).into(),
        rtype: asked.qtype().to_int(),
        class: asked.qclass().to_int(),
    };
    let mut message = Message {
        id: header.id(),
        is_answer: header.qr(),
        rcode: if whole { wire.opt_rcode().to_int() } else { header.rcode().to_int().into() },
        flags: u16::from_be_bytes([bytes[2], bytes[3]]),
        question,
        records: Vec::new(),
        announced: counts.ancount(),
        cut: false,
        resolved: Vec::new(),
    };
    if message.is_answer {
        answers(wire, &mut message);
    }
    Ok(message)
}

/// Reads the answer section as far as it goes.
fn answers(wire: &Wire<[u8]>, message: &mut Message) {
    let Ok(section) = wire.answer() else {
        message.cut = message.announced != 0;
        return;
    };
    let mut room = MOST_TEXT;
    // The names that stand for the one that was asked for: servers write them in this order (RFC 1034, section 4.3.2).
    let mut alias = message.question.name.to_string();
    let mut ttl_s = u32::MAX;
    let mut read = 0;
    for record in section {
        let Ok(record) = record else { break };
        read += 1;
        let (rtype, this_ttl_s) = (record.rtype(), record.ttl().as_secs());
        let data = data(&record);
        let of_alias = record.class().to_int() == message.question.class && name_text(&record.owner()) == alias;
        match &data {
            Some(Data::Address(ip)) if of_alias && message.resolved.len() < MOST_RECORDS => {
                message.resolved.push((*ip, ttl_s.min(this_ttl_s)));
            }
            Some(Data::Text(target)) if of_alias && rtype == Rtype::CNAME => {
                alias = target.to_string();
                ttl_s = ttl_s.min(this_ttl_s);
            }
            _ => {}
        }
        if message.records.len() < MOST_RECORDS {
            let data = match data {
                Some(Data::Text(text)) if text.len() <= room => {
                    room -= text.len();
                    Data::Text(text)
                }
                Some(address @ Data::Address(_)) => address,
                Some(Data::Text(_)) | None => Data::Text("".into()),
            };
            let class = record.class().to_int();
            message.records.push(Record { rtype: rtype.to_int(), class, ttl_s: this_ttl_s, data });
        }
    }
    message.cut = read < message.announced;
}

/// What a record says, if it can be read.
fn data(record: &ParsedRecord<'_, [u8]>) -> Option<Data> {
    match record.rtype() {
        Rtype::A => {
            let record = record.to_record::<A>().ok().flatten()?;
            Some(Data::Address(IpAddr::V4(record.data().addr())))
        }
        Rtype::AAAA => {
            let record = record.to_record::<Aaaa>().ok().flatten()?;
            Some(Data::Address(IpAddr::V6(record.data().addr())))
        }
        Rtype::CNAME => {
            let record = record.to_record::<Cname<ParsedName<&[u8]>>>().ok().flatten()?;
            Some(Data::Text(name_text(record.data().cname()).into()))
        }
        _ => {
            let record = record.to_any_record::<AllRecordData<&[u8], ParsedName<&[u8]>>>().ok()?;
            let mut text = Bounded(String::new());
            // An error is the end of the room.
            let _ = write!(text, "{}", record.data());
            Some(Data::Text(text.0.into()))
        }
    }
}

/// Text that ends where the room does, without control characters.
struct Bounded(String);

impl std::fmt::Write for Bounded {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        for char in text.chars() {
            if self.0.len() + char.len_utf8() > MOST_TEXT / 2 {
                return Err(std::fmt::Error);
            }
            self.0.push(if char.is_control() { ' ' } else { char });
        }
        Ok(())
    }
}

/// A name as [`Question::name`] has it.
fn name_text<Octs: AsRef<[u8]>>(name: &ParsedName<Octs>) -> String {
    let mut text = String::new();
    for label in name.iter().filter(|label| !label.is_root()) {
        if !text.is_empty() {
            text.push('.');
        }
        for &byte in label.as_slice() {
            if byte.is_ascii_graphic() && byte != b'.' && byte != b'\\' {
                text.push(byte.to_ascii_lowercase() as char);
            } else {
                let _ = write!(text, "\\{byte:03}");
            }
        }
    }
    if text.is_empty() {
        text.push('.');
    }
    text
}

#[cfg(test)]
mod tests;
