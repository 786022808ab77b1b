//! Clients that mean harm, or are broken: what they can make Roost hold, and what its other
//! clients notice of them. Each attacks a process of its own, whose memory is measured.

#[path = "hostile/answers.rs"]
mod answers;
#[path = "hostile/connections.rs"]
mod connections;
#[path = "hostile/messages.rs"]
mod messages;
#[path = "common/process.rs"]
#[allow(dead_code, reason = "other tests need more of it")]
mod process;
#[path = "hostile/resets.rs"]
mod resets;
#[path = "hostile/victim.rs"]
mod victim;
