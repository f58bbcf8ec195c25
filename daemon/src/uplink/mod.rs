//! Who is kept out of the node before its network stack sees a packet: the deny list, and what the program at the uplink is
//! told of it. Pure; [`crate::app::gate`] reads the file and attaches the program, [`crate::datapath::uplink`] writes the map.

pub mod deny_list;
