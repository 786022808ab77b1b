//! Which authors are pulled, as a store keeps them in memory. Pure.

use std::sync::Arc;

/// `authors` with `author` among them, or without it.
pub(super) fn changed<A: Copy + PartialEq>(authors: &[A], author: A, is_pulled: bool) -> Arc<[A]> {
    let others = authors.iter().copied().filter(|other| *other != author);
    others.chain(is_pulled.then_some(author)).collect()
}
