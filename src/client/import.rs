//! `roost import`.

use std::path::PathBuf;

use clap::Args;

use super::{
    ClientError, Interrupt, Target,
    edge_list::{self, EdgeList},
    graph_import::{self, follower_lists},
    progress::{Reporter, TerminalReporter},
};

/// Imports follows from an edge list.
///
/// The file is text or gzip, in the form of SNAP's and KONECT's data sets: `follower
/// followee` a line, two numbers separated by spaces, tabs, a comma or a semicolon.
/// Further columns, as weights and times, are ignored; blank lines, lines that begin with #
/// or %, the first line if it names columns, and the size line of a MatrixMarket file are
/// skipped. Every line is one follow, in an undirected graph too. The whole file is checked
/// before anything is sent. Importing a file twice changes nothing.
///
/// Ctrl-C ends the import once what was sent is durable, and exits with 0; a second
/// one does not wait for that, and exits with 130.
#[derive(Args, Clone, Debug)]
pub struct ImportArgs {
    /// The edge list, plain or gzip
    pub file: PathBuf,
    /// Add N to every id of the file: Roost's ids begin at 1, those of some files
    /// at 0
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub id_offset: u64,
    /// Where to do it.
    #[command(flatten)]
    pub target: Target,
}

impl ImportArgs {
    /// Reads and checks the whole file, imports it, and says on stdout what
    /// there was.
    ///
    /// # Errors
    /// If the file cannot be read or has a broken line, in which case nothing is
    /// imported; if the server cannot be reached or fails, in which case the
    /// command can simply be repeated.
    pub async fn run(self) -> Result<(), ClientError> {
        // A server that is not there is told before a long file is read.
        let channel = self.target.connect().await?;
        let mut reporter = TerminalReporter::default();
        let list = edge_list::read_with_progress(self.file, self.id_offset, &mut reporter).await?;
        let EdgeList { edges, self_follow_count, duplicate_count, longer_line_count, .. } = list;
        if longer_line_count > 0 {
            reporter.line(&format!(
                "{longer_line_count} lines have more than two columns, of which the others are \
                 ignored"
            ));
        }
        let edge_count = edges.len() as u64;
        reporter.begin("importing follows", Some(edge_count));
        let interrupt = Interrupt::listen();
        let (lists, stop) = (follower_lists(edges), interrupt.stop.clone());
        let imported = graph_import::import(channel, lists, &mut reporter, stop).await?;
        reporter.end();
        if interrupt.stop.is_cancelled() && imported < edge_count {
            println!(
                "stopped: {imported} of {edge_count} follows are imported; the same command \
                 imports the rest"
            );
            return Ok(());
        }
        if imported != edge_count {
            return Err(ClientError::BadAnswer(format!(
                "{edge_count} follows were sent, {imported} were counted"
            )));
        }
        println!(
            "imported {imported} follows (skipped: {duplicate_count} repeated, \
             {self_follow_count} of an account following itself)"
        );
        Ok(())
    }
}
