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
