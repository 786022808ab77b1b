//! The page.
use super::report::Report;
/// The page.
pub(super) fn page(_report: &Report) -> String {
    String::new()
}
