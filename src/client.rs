//! The commands that one types by hand: `post`, `follow`, `unfollow`, `mute`, `unmute`,
//! `block`, `unblock`, `pull`, `push`, `timeline`, `thread`, `notifications`, `message`,
//! `messages`, `delete-message`, `delete` and `import`.
//!
//! Each command is a clap `Args` struct with a `run` that talks to a Roost over
//! gRPC and prints to stdout. Nothing here knows how Roost works inside; what
//! fails is told in one line that says what to do.

mod connect;
mod delivery;
pub mod edge_list;
mod error;
mod follow;
pub mod graph_import;
mod gzip_members;
mod hide;
mod import;
mod interrupt;
mod lines;
mod messages;
mod notifications;
pub(crate) mod page;
mod post;
pub mod progress;
pub(crate) mod text_file;
mod thread;
mod timeline;

pub use connect::{DEFAULT_TARGET, Target, Targets};
pub use delivery::DeliveryArgs;
pub use error::ClientError;
pub(crate) use error::{is_transient, status_line};
pub use follow::{FollowArgs, UnfollowArgs};
pub use hide::HideArgs;
pub use import::ImportArgs;
pub(crate) use interrupt::Interrupt;
pub use messages::{DeleteMessageArgs, MessageArgs, MessagesArgs};
pub use notifications::NotificationsArgs;
pub use post::{DeleteArgs, PostArgs};
pub use thread::ThreadArgs;
pub use timeline::TimelineArgs;
