//! Incremental checksums: the Internet's (RFC 1624), and CRC-32C.

/// The IPv4 header checksum after the TTL went down by one.
///
/// `checksum` is the field in network order, read as a number. TTL is the high byte of its
/// 16-bit word, so the sum falls by 0x0100 and its complement rises by as much.
#[inline(always)]
pub const fn after_ttl_decrement(checksum: u16) -> u16 {
    let sum = checksum as u32 + 0x0100;
    (sum + (sum >> 16)) as u16
}

/// What changes in a sum of ones' complement when some words become others, all in memory order.
#[inline(always)]
pub fn difference<const N: usize>(old: [u32; N], new: [u32; N]) -> u32 {
    let mut sum = 0u64;
    let mut word = 0;
    while word < N {
        sum += !old[word] as u64 + new[word] as u64;
        word += 1;
    }
    // Twice: the first may leave one more.
    sum = (sum & 0xffff_ffff) + (sum >> 32);
    ((sum & 0xffff_ffff) + (sum >> 32)) as u32
}

/// A checksum after the words that it covers have changed by a [`difference`]; both in memory order.
#[inline(always)]
pub const fn after_difference(checksum: u16, difference: u32) -> u16 {
    let mut sum = !checksum as u32 + (difference & 0xffff) + (difference >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    !(sum as u16)
}

/// CRC-32C's polynomial without its highest term, bits in reverse (RFC 9260, appendix A: 0x1EDC6F41).
const CRC32C: u32 = 0x82f6_3b78;

/// Product of two polynomials modulo that of CRC-32C; the lowest term is the highest bit.
#[inline(always)]
pub const fn multiply(a: u32, b: u32) -> u32 {
    let (mut rest, mut power, mut sum) = (a, b, 0);
    let mut bit = 0;
    while bit < 32 {
        if rest & 1 << 31 != 0 {
            sum ^= power;
        }
        rest <<= 1;
        power = if power & 1 != 0 { power >> 1 ^ CRC32C } else { power >> 1 };
        bit += 1;
    }
    sum
}

/// What has to be added (by exclusive or) to the CRC-32C of `length` bytes (at most 65,535) when `change` is added to the
/// first four of them, read as a little-endian number. A CRC is linear: it is that of the change alone, begun
/// with and ended by nothing.
#[inline(always)]
pub fn crc32c_of_change(change: u32, length: u32, multiply: impl Fn(u32, u32) -> u32) -> u32 {
    // Each byte that follows multiplies by x^8, so do the four themselves: x^(8 * length), by squares.
    let mut square = 1 << 23;
    let mut product = change;
    let mut bit = 0;
    while bit < 16 {
        if length >> bit & 1 != 0 {
            product = multiply(product, square);
        }
        square = multiply(square, square);
        bit += 1;
    }
    product
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checksum(header: &[u8; 20]) -> u16 {
        let mut sum = 0u32;
        for pair in header.chunks(2) {
            sum += u16::from_be_bytes([pair[0], pair[1]]) as u32;
        }
        while sum >> 16 != 0 {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    #[test]
    fn a_difference_makes_what_a_full_computation_makes() {
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = || {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 32) as u32
        };
        for round in 0..10_000u32 {
            let mut header = [0u8; 20];
            header.fill_with(|| next() as u8);
            header[10..12].fill(0);
            // Extremes as well.
            let new = match round % 4 {
                0 => 0,
                1 => u32::MAX,
                _ => next(),
            };
            let old = u32::from_ne_bytes([header[16], header[17], header[18], header[19]]);
            let before = u16::from_ne_bytes(checksum(&header).to_be_bytes());
            header[16..].copy_from_slice(&new.to_ne_bytes());
            let after = u16::from_ne_bytes(checksum(&header).to_be_bytes());
            let ours = after_difference(before, difference([old], [new]));
            assert!(ours == after || [ours, after].iter().all(|sum| [0, 0xffff].contains(sum)), "{ours:x} {after:x}");
        }
    }

    #[test]
    fn differences_of_several_words_add_up() {
        let (old, new) = ([u32::MAX, 1, 0x8000_0000, 7], [0, u32::MAX, 0xffff_0000, 0x1234_5678]);
        let mut one_by_one = 0xbeef;
        for word in 0..4 {
            one_by_one = after_difference(one_by_one, difference([old[word]], [new[word]]));
        }
        assert_eq!(after_difference(0xbeef, difference(old, new)), one_by_one);
    }

    #[test]
    fn equals_a_full_computation_for_every_ttl_and_many_headers() {
        for id in (0..=u16::MAX).step_by(257) {
            for ttl in 2..=255u8 {
                let mut header = [0x45, 0, 0, 40, 0, 0, 0x40, 0, ttl, 6, 0, 0, 10, 0, 0, 1, 10, 255, 3, 4];
                header[4..6].copy_from_slice(&id.to_be_bytes());
                let before = checksum(&header);
                header[8] = ttl - 1;
                let after = checksum(&header);
                let ours = after_ttl_decrement(before);
                // 0x0000 and 0xffff are one value in ones' complement.
                assert!(ours == after || (ours == 0xffff && after == 0) || (ours == 0 && after == 0xffff));
            }
        }
    }

    fn crc32c(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(u32::MAX, |crc, byte| {
            (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 != 0 { crc >> 1 ^ CRC32C } else { crc >> 1 })
        })
    }

    #[test]
    fn crc32c_is_that_of_the_check_value() {
        // RFC 3720, appendix B.4: 32 bytes of zeroes.
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
    }

    #[test]
    fn a_change_of_ports_changes_the_crc_by_what_is_said() {
        for length in (12..64).chain([255, 256, 1452, 1480, 9000, 65_535_usize]) {
            let mut space = [0; 65_535];
            let bytes = &mut space[..length];
            for (i, byte) in bytes.iter_mut().enumerate() {
                *byte = (i * 7 + 13) as u8;
            }
            let before = crc32c(bytes);
            let change = [0x12, 0xab, 0xff, 0x01];
            for (byte, change) in bytes.iter_mut().zip(change) {
                *byte ^= change;
            }
            let said = crc32c_of_change(u32::from_le_bytes(change), length as u32, multiply);
            assert_eq!(before ^ said, crc32c(bytes), "{length} bytes");
        }
    }
}
