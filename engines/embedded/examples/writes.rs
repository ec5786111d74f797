//! Measures durable writes: `cargo run --example writes [FOLDER]`. Prints writes a second by one
//! writer and by 64; the disk under FOLDER decides.

use std::path::Path;
use std::time::{Duration, Instant};

use hydrant_embedded::EmbeddedStore;
use hydrant_ports::state::Put;
use hydrant_ports::{Expect, Key};

const TIME: Duration = Duration::from_secs(3);

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = match std::env::args_os().nth(1) {
        Some(folder) => tempfile::tempdir_in(folder)?,
        None => tempfile::tempdir()?,
    };
    for writers in [1, 64] {
        measure(folder.path(), writers).await?;
    }
    Ok(())
}

async fn measure(folder: &Path, writers: usize) -> Result<(), Box<dyn std::error::Error>> {
    let store = EmbeddedStore::open(folder.join(format!("{writers}.redb")))?;
    let begin = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for writer in 0..writers {
        let (coordination, state) = (store.coordination(), store.state());
        tasks.spawn(async move {
            let mut slowest = Duration::ZERO;
            let mut count = 0_u32;
            while begin.elapsed() < TIME {
                let sent = Instant::now();
                let key: Key = format!("writes/{writer}/{}", count % 100).parse()?;
                let value = vec![b'x'; 100].into();
                if count.is_multiple_of(2) {
                    coordination.put(&key, value, Expect::Any).await?;
                } else {
                    state.put(&key, value, Put::default()).await?;
                }
                slowest = slowest.max(sent.elapsed());
                count += 1;
            }
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>((count, slowest))
        });
    }
    let mut count = 0;
    let mut slowest = Duration::ZERO;
    for result in tasks.join_all().await {
        let (done, its_slowest) = result.map_err(|error| error.to_string())?;
        count += done;
        slowest = slowest.max(its_slowest);
    }
    let rate = f64::from(count) / begin.elapsed().as_secs_f64();
    println!("{writers:>3} writers: {rate:>7.0} durable writes/s, slowest {slowest:?}");
    Ok(())
}
