//! Which authors are pulled, as a store keeps them in memory. Pure.

use std::sync::Arc;

/// The authors, with one of them among them from now on, or no longer.
pub(super) fn changed<A: Copy + PartialEq>(authors: &[A], author: A, is_pulled: bool) -> Arc<[A]> {
    let others = authors.iter().copied().filter(|other| *other != author);
    others.chain(is_pulled.then_some(author)).collect()
}
