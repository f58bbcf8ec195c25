//! Random Ethernet addresses for pods that ask for none. What they are is in [`crate::mac`].

use std::{
    fs::File,
    io::{self, Read},
};

use crate::mac::Mac;

/// A random, locally administered unicast address.
pub fn random() -> io::Result<Mac> {
    let mut bits = [0; 6];
    File::open("/dev/urandom")?.read_exact(&mut bits)?;
    Ok(Mac::local(bits))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_are_not_the_same() {
        assert_ne!(random().unwrap(), random().unwrap());
    }
}
