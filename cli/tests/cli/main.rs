//! The real binary against a daemon made of canned answers: what is printed (golden files in
//! `testdata/`, rewritten with UPDATE_GOLDEN=1), what is asked, and how it ends.

mod errors;
mod fake;
mod flows;
mod folder;
mod golden;
mod pipes;
mod real_flows;
mod shop;
mod shop_explain;
mod shop_flows;
mod shop_services;
