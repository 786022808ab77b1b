//! What a post takes that is kept in memory.

use crate::domain::Post;

/// Beside its text, link and mentions, in bytes: a place in a map, and what an allocator adds.
const OVERHEAD_BYTES: u64 = 200;

/// Of a post that is as long as most are.
pub(super) const POST_MEMORY_BYTES_USUAL: u64 = OVERHEAD_BYTES + 100;

/// Of this one, about.
pub(super) fn memory_bytes(post: &Post) -> u64 {
    let link_len = post.link.as_ref().map_or(0, String::len);
    let mentions = size_of_val(&*post.mentions);
    OVERHEAD_BYTES + (post.text.len() + link_len + mentions) as u64
}
