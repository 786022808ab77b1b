//! What an administrator does to the leaders of a topic of three brokers, in as little of
//! Kafka's protocol as it takes (<https://kafka.apache.org/protocol>): Kafka's own tools are
//! not among its server's jars, and librdkafka has no call for it.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

const ELECT_LEADERS: i16 = 43;
const ALTER_PARTITION_REASSIGNMENTS: i16 = 45;
const TIMEOUT: Duration = Duration::from_secs(30);
/// Of an election: the partition has the leader that it should have.
const ELECTION_NOT_NEEDED: i16 = 84;

/// Reorders the replicas of partitions, each of which is then led by the first of its own.
/// Any broker passes this on to the controller.
pub fn move_leaders(
    broker: SocketAddr,
    topic: &str,
    partitions: &[(i32, Vec<i32>)],
) -> io::Result<()> {
    // Version 0 of both headers with tags, and of the request: compact arrays and texts.
    let mut reassign = vec![];
    reassign.extend((TIMEOUT.as_millis() as i32).to_be_bytes());
    reassign.push(compact(1));
    reassign.push(compact(topic.len()));
    reassign.extend(topic.as_bytes());
    reassign.push(compact(partitions.len()));
    for (partition, replicas) in partitions {
        reassign.extend(partition.to_be_bytes());
        reassign.push(compact(replicas.len()));
        replicas.iter().for_each(|replica| reassign.extend(replica.to_be_bytes()));
        reassign.push(0);
    }
    reassign.extend([0, 0]);
    let answer = ask(broker, ALTER_PARTITION_REASSIGNMENTS, 0, &[0], &reassign)?;
    // After the number of the request come tags, the throttle time, and the error.
    accept("the reassignment", error_at(&answer, 4 + 1 + 4)?)?;

    let mut elect = vec![0];
    elect.extend(1i32.to_be_bytes());
    elect.extend((topic.len() as i16).to_be_bytes());
    elect.extend(topic.as_bytes());
    elect.extend((partitions.len() as i32).to_be_bytes());
    partitions.iter().for_each(|(partition, _)| elect.extend(partition.to_be_bytes()));
    elect.extend((TIMEOUT.as_millis() as i32).to_be_bytes());
    let answer = ask(broker, ELECT_LEADERS, 1, &[], &elect)?;
    accept("the election", error_at(&answer, 4 + 4)?)
}

/// A length of a compact array or text. All are short here.
fn compact(length: usize) -> u8 {
    u8::try_from(length + 1).ok().filter(|length| *length < 128).expect("it is short")
}

fn ask(
    broker: SocketAddr,
    api: i16,
    version: i16,
    header_tags: &[u8],
    body: &[u8],
) -> io::Result<Vec<u8>> {
    let mut request = Vec::new();
    request.extend(api.to_be_bytes());
    request.extend(version.to_be_bytes());
    // The number of the request, and no name of the client.
    request.extend(1i32.to_be_bytes());
    request.extend((-1i16).to_be_bytes());
    request.extend(header_tags);
    request.extend(body);
    let mut stream = TcpStream::connect_timeout(&broker, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.write_all(&(request.len() as u32).to_be_bytes())?;
    stream.write_all(&request)?;
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let mut answer = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut answer)?;
    Ok(answer)
}

fn error_at(answer: &[u8], at: usize) -> io::Result<i16> {
    let bytes = answer.get(at..at + 2).ok_or(io::ErrorKind::UnexpectedEof)?;
    Ok(i16::from_be_bytes([bytes[0], bytes[1]]))
}

fn accept(what: &str, code: i16) -> io::Result<()> {
    if code == 0 || code == ELECTION_NOT_NEEDED {
        return Ok(());
    }
    Err(io::Error::other(format!("{what} failed with the error {code} of Kafka")))
}
