//! Where messages begin in what TCP carries: each has its length in two bytes before it (RFC 1035, section 4.2.2). Only so
//! much is remembered of a connection as tells the middle of a message from its beginning; what comes in another order, or was
//! not told, is taken up again at the beginning of a packet.

/// One direction of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stream {
    /// At this sequence number the next length stands.
    Next(u32),
    /// There the message of this length begins, whose length came in a packet of its own.
    Alone(u32, u16),
    /// Not known: something was not told.
    Lost,
}

/// Finds the messages that begin in a packet. `length` bytes were sent, of which `bytes` are here; `tell` gets what is here of each,
/// and whether that is all. `stream`: as it stood, `None` before the first packet. As it stands afterwards.
pub(crate) fn cut<'a>(
    stream: Option<Stream>,
    seq: u32,
    length: u32,
    bytes: &'a [u8],
    mut tell: impl FnMut(&'a [u8], bool),
) -> Stream {
    let message = |from: u32, size: u16| {
        let from = (from as usize).min(bytes.len());
        let to = (from + usize::from(size)).min(bytes.len());
        (&bytes[from..to], to - from == usize::from(size))
    };
    let (mut at, mut is_lost) = match stream {
        None => (0, false),
        Some(Stream::Lost) => (0, true),
        Some(Stream::Alone(begin, size)) if begin == seq => {
            let (here, whole) = message(0, size);
            tell(here, whole);
            (u32::from(size), false)
        }
        Some(Stream::Alone(..)) => (0, true),
        Some(Stream::Next(next)) => match next.wrapping_sub(seq) {
            // No message is longer.
            ahead if ahead <= u32::from(u16::MAX) => (ahead, false),
            _ => (0, true),
        },
    };
    while at < length {
        let place = at as usize;
        let Some(&[high, low]) = bytes.get(place..place + 2) else {
            // Half a length, or beyond what is here.
            return Stream::Lost;
        };
        let size = u16::from_be_bytes([high, low]);
        at += 2;
        if at == length && size != 0 && !is_lost {
            return Stream::Alone(seq.wrapping_add(at), size);
        }
        let end = at + u32::from(size);
        if is_lost && end > length {
            // The middle of something, which would have others passed over.
            return Stream::Lost;
        }
        let (here, whole) = message(at, size);
        tell(here, whole);
        at = end;
        // Nothing else is likely to end where a packet does.
        is_lost &= at != length;
    }
    Stream::Next(seq.wrapping_add(at))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is told of packets: sequence number, bytes, and how many more were sent than are here.
    fn told(packets: &[(u32, &[u8], u32)]) -> Vec<(Vec<u8>, bool)> {
        let (mut stream, mut all) = (None, Vec::new());
        for &(seq, bytes, more) in packets {
            let length = bytes.len() as u32 + more;
            stream = Some(cut(stream, seq, length, bytes, |here, whole| all.push((here.to_vec(), whole))));
        }
        all
    }

    #[test]
    fn a_message_in_a_packet() {
        assert_eq!(told(&[(7, b"\0\x03abc", 0)]), [(b"abc".to_vec(), true)]);
    }

    #[test]
    fn several_in_a_packet() {
        let all = told(&[(u32::MAX, b"\0\x01a\0\x02bc", 0), (6, b"\0\x01d", 0)]);
        assert_eq!(all, [(b"a".to_vec(), true), (b"bc".to_vec(), true), (b"d".to_vec(), true)]);
    }

    #[test]
    fn the_middle_of_a_message_is_none() {
        let forged = b"xx\0\x01f";
        assert_eq!(
            told(&[(0, b"\0\x09abcd", 0), (6, forged, 0), (11, b"\0\x01z", 0)]),
            [(b"abcd".to_vec(), false), (b"z".to_vec(), true)]
        );
    }

    #[test]
    fn the_length_alone_comes_first() {
        assert_eq!(
            told(&[(0, b"\0\x03", 0), (2, b"abc", 0), (5, b"\0\x01z", 0)]),
            [(b"abc".to_vec(), true), (b"z".to_vec(), true)]
        );
    }

    #[test]
    fn what_is_not_here_is_not_whole() {
        assert_eq!(
            told(&[(0, b"\0\x09abcd", 5), (11, b"\0\x01z", 0)]),
            [(b"abcd".to_vec(), false), (b"z".to_vec(), true)]
        );
    }

    #[test]
    fn a_packet_that_was_not_told_does_not_end_it() {
        assert_eq!(
            told(&[(0, b"\0\x01a", 0), (300_000, b"\0\x01z", 0)]),
            [(b"a".to_vec(), true), (b"z".to_vec(), true)]
        );
        assert_eq!(told(&[(0, b"\0", 0), (1, b"\0\x01z", 0)]), [(b"z".to_vec(), true)]);
    }

    #[test]
    fn noise_after_a_gap_hides_no_message_that_fills_a_packet() {
        let noise = [0xff; 40];
        let all = told(&[
            (0, b"\0\x01a", 0),
            (5000, &noise, 0),
            (5040, &noise, 0),
            (5080, b"\0\x01z", 0),
            (5083, b"\0\x02zy", 0),
        ]);
        assert_eq!(all, [(b"a".to_vec(), true), (b"z".to_vec(), true), (b"zy".to_vec(), true)]);
    }

    #[test]
    fn any_bytes_end() {
        for first in 0..=u8::MAX {
            let bytes = [first, 0, 0, first, 1, 2, 3, 0, 0];
            let stream = cut(None, u32::MAX - 3, 900, &bytes, |_, _| {});
            let _ = cut(Some(stream), 2, 9, &bytes, |_, _| {});
        }
    }
}
