//! The `roost` program as one uses it: what it prints, how it ends, and what it
//! leaves on disk.

#[path = "commands/bench.rs"]
mod bench;
#[path = "commands/by_hand.rs"]
mod by_hand;
#[path = "commands/ctrl_c.rs"]
mod ctrl_c;
#[path = "commands/demo.rs"]
mod demo;
#[path = "commands/edge_lists.rs"]
mod edge_lists;
#[path = "commands/feeds.rs"]
mod feeds;
#[path = "commands/observed.rs"]
mod observed;
#[path = "common/process.rs"]
mod process;
#[path = "commands/program.rs"]
mod program;
#[path = "commands/rebuild.rs"]
mod rebuild;
#[path = "commands/rss.rs"]
mod rss;
#[path = "commands/rss_http.rs"]
mod rss_http;
#[path = "commands/serve.rs"]
mod serve;
mod services;
#[path = "commands/town.rs"]
mod town;
#[path = "commands/waiting.rs"]
mod waiting;
