//! Incremental checksums (RFC 1624).

/// The IPv4 header checksum after the TTL went down by one.
///
/// `checksum` is the field in network order, read as a number. TTL is the high byte of its
/// 16-bit word, so the sum falls by 0x0100 and its complement rises by as much.
#[inline(always)]
pub const fn after_ttl_decrement(checksum: u16) -> u16 {
    let sum = checksum as u32 + 0x0100;
    (sum + (sum >> 16)) as u16
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
}
