//! A mutation fuzzer for the parsers of this crate, run by their unit tests.
//!
//! It runs inside `cargo test`, without nightly or instrumentation: a small number of inputs by
//! default, and as many as `ROOST_FUZZ_INPUTS` says for a long run. `ROOST_TEST_SEED` replays a
//! failure; a failing test prints its seed and the input itself, as a literal to keep in the
//! corpus of the parser.
//!
//! A failure is a panic of `run`, so that a target can assert more than the absence of panics.

use std::{
    env,
    ops::Range,
    thread,
    time::{Duration, Instant},
};

use rand::{Rng, RngExt, SeedableRng, rngs::StdRng};

const INPUTS_VARIABLE: &str = "ROOST_FUZZ_INPUTS";
const SEED_VARIABLE: &str = "ROOST_TEST_SEED";
/// The longest input, in bytes.
const INPUT_BYTES_MAX: usize = 1 << 16;
/// Mutations of one input.
const MUTATIONS_MAX: usize = 8;
/// The longest piece that is moved from one input to another, in bytes.
const TOKEN_BYTES_MAX: usize = 32;
/// Beyond this a failing input is printed shortened.
const PRINTED_BYTES_MAX: usize = 4_096;
/// An input that takes longer than this fails: parsers take microseconds for 64 KiB.
const INPUT_TIME_MAX: Duration = Duration::from_secs(20);
/// Bytes that mean something in one of the formats.
const BYTES: &[u8] = b"\0\x01\x7f\x80\xff\r\n \t<>&;:/=\"'!?-[]{}(),.%#$*+~_\\0189aAzZ";

/// Calls `run` with every entry of `corpus`, then with mutations of them: `inputs_default`, or
/// as many as the environment says.
///
/// # Panics
/// If `run` does, after printing the seed and the input; if an input takes more than 20 s.
pub(crate) fn fuzz(corpus: &[&[u8]], inputs_default: u64, mut run: impl FnMut(&[u8])) {
    let inputs = number(INPUTS_VARIABLE).unwrap_or(inputs_default);
    let seed = number(SEED_VARIABLE).unwrap_or_else(rand::random);
    let begun = Instant::now();
    let mutated = (0..inputs).map(|index| {
        let mut mutator = Mutator { corpus, random: StdRng::seed_from_u64(seed ^ (index << 20)) };
        mutator.input()
    });
    let kept = corpus.iter().map(|input| input.to_vec());
    for (index, input) in kept.chain(mutated).enumerate() {
        let report = Report { seed, index, input: &input };
        let input_begun = Instant::now();
        run(&input);
        assert!(input_begun.elapsed() < INPUT_TIME_MAX, "it takes too long");
        drop(report);
    }
    println!("{inputs} mutated inputs in {:.1} s, seed {seed}", begun.elapsed().as_secs_f64());
}

fn number(variable: &str) -> Option<u64> {
    let text = env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is no number: {text:?}")))
}

/// Prints what is needed to replay an input if it is dropped by a panic.
struct Report<'a> {
    seed: u64,
    index: usize,
    input: &'a [u8],
}

impl Drop for Report<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            let Self { seed, index, input } = self;
            let shown = &input[..input.len().min(PRINTED_BYTES_MAX)];
            println!(
                "input {index} failed ({} bytes); replay it with {SEED_VARIABLE}={seed} and \
                 {INPUTS_VARIABLE} above {index}, or keep it: b\"{}\"",
                input.len(),
                shown.escape_ascii()
            );
        }
    }
}

/// Makes one input of a corpus.
struct Mutator<'a> {
    corpus: &'a [&'a [u8]],
    random: StdRng,
}

impl<'a> Mutator<'a> {
    fn input(&mut self) -> Vec<u8> {
        let mut input = self.entry().to_vec();
        for _ in 0..self.random.random_range(1..=MUTATIONS_MAX) {
            self.mutate(&mut input);
            input.truncate(INPUT_BYTES_MAX);
        }
        input
    }

    fn mutate(&mut self, input: &mut Vec<u8>) {
        let at = self.index(input.len());
        match self.random.random_range(0..12) {
            0 => self.flip_bit(input),
            1 => self.set_byte(input),
            2 => {
                let range = self.range(input.len(), input.len());
                input.drain(range);
            }
            3 => input.truncate(at),
            4 => drop(input.splice(at..at, self.noise())),
            5 => drop(input.splice(at..at, self.token())),
            6 => {
                let range = self.range(input.len(), TOKEN_BYTES_MAX);
                drop(input.splice(range, self.token()));
            }
            7 => {
                let other = self.entry();
                let from = self.index(other.len());
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
            8 => {
                let copied = input[self.range(input.len(), input.len())].to_vec();
                drop(input.splice(at..at, copied));
            }
            9 => {
                let repeated = input[self.range(input.len(), TOKEN_BYTES_MAX)].to_vec();
                let times = self.random.random_range(2..200);
                drop(input.splice(at..at, repeated.repeat(times)));
            }
            10 => self.set_integer(input),
            _ => self.change_digit(input),
        }
    }

    fn flip_bit(&mut self, input: &mut [u8]) {
        let bit = self.random.random_range(0..8);
        let at = self.index(input.len());
        if let Some(byte) = input.get_mut(at) {
            *byte ^= 1 << bit;
        }
    }

    fn set_byte(&mut self, input: &mut [u8]) {
        let value = BYTES[self.random.random_range(0..BYTES.len())];
        let at = self.index(input.len());
        if let Some(byte) = input.get_mut(at) {
            *byte = value;
        }
    }

    /// Writes an integer at the edge of its type, as lengths and counts are.
    fn set_integer(&mut self, input: &mut [u8]) {
        let edges = [0, 1, 1 << 7, 1 << 8, 1 << 15, 1 << 16, 1 << 31, 1 << 32, 1 << 63, 0];
        let value: u64 = edges[self.random.random_range(0..edges.len())];
        let value = value.wrapping_sub(self.random.random_range(0..2));
        let width = 1 << self.random.random_range(0..4);
        let mut bytes = value.to_le_bytes()[..width].to_vec();
        if self.random.random() {
            bytes.reverse();
        }
        let at = self.index(input.len());
        for (byte, new) in input.iter_mut().skip(at).zip(bytes) {
            *byte = new;
        }
    }

    /// Changes a number that is written in digits.
    fn change_digit(&mut self, input: &mut [u8]) {
        let digit = b"0123456789-"[self.random.random_range(0..11)];
        let at = self.index(input.len());
        if let Some(byte) = input.iter_mut().skip(at).find(|byte| byte.is_ascii_digit()) {
            *byte = digit;
        }
    }

    fn noise(&mut self) -> Vec<u8> {
        let mut noise = vec![0; self.random.random_range(1..=TOKEN_BYTES_MAX)];
        self.random.fill_bytes(&mut noise);
        noise
    }

    /// A piece of any entry of the corpus.
    fn token(&mut self) -> Vec<u8> {
        let entry = self.entry();
        entry[self.range(entry.len(), TOKEN_BYTES_MAX)].to_vec()
    }

    fn entry(&mut self) -> &'a [u8] {
        match self.corpus.len() {
            0 => &[],
            len => self.corpus[self.random.random_range(0..len)],
        }
    }

    fn index(&mut self, len: usize) -> usize {
        self.random.random_range(0..=len)
    }

    /// At most `len_max` of `len` bytes.
    fn range(&mut self, len: usize, len_max: usize) -> Range<usize> {
        let begin = self.index(len);
        let range_len = self.random.random_range(0..=len_max.min(len - begin));
        begin..begin + range_len
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    #[test]
    fn fuzz_finds_panic_that_needs_two_entries() {
        let target = |input: &[u8]| {
            let has = |part: &[u8]| input.windows(part.len()).any(|window| window == part);
            assert!(!(has(b"left") && has(b"right")), "both");
        };
        let corpus: [&[u8]; 2] = [b"a left one", b"a right one"];
        let found = catch_unwind(AssertUnwindSafe(|| fuzz(&corpus, 100_000, target)));
        assert!(found.is_err(), "the fuzzer splices nothing");
    }

    #[test]
    fn fuzz_runs_corpus_first_and_bounds_inputs() {
        let corpus: [&[u8]; 2] = [b"one", b""];
        let mut seen = Vec::new();
        fuzz(&corpus, 2_000, |input| seen.push(input.to_vec()));
        assert_eq!(&seen[..2], &corpus[..]);
        assert!(seen.iter().all(|input| input.len() <= INPUT_BYTES_MAX));
        assert!(seen.iter().any(|input| input.len() > 100));
    }

    #[test]
    fn mutator_same_seed_makes_same_input() {
        let input = |seed| {
            let random = StdRng::seed_from_u64(seed);
            Mutator { corpus: &[b"hello, world"], random }.input()
        };
        assert_eq!(input(1), input(1));
        assert!((2..50).any(|seed| input(seed) != input(1)));
    }
}
