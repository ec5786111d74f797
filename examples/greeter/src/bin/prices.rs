use std::time::Duration;

use hydrant_sdk::{Error, Hydrant, Leadership, Service, Tier};

#[tokio::main]
async fn main() -> Result<(), Error> {
    let hydrant = Hydrant::from_env()?;
    Service::new(Tier::Service, "prices", "1.0.0")?
        .alongside(lead(hydrant))
        .run()
        .await
}

/// One process leads; the others wait in line.
async fn lead(hydrant: Hydrant) -> Result<(), Error> {
    loop {
        let leadership = hydrant.campaign("prices").await?;
        println!("leads, epoch {}", leadership.epoch());
        if let Err(error) = work(&hydrant, &leadership).await {
            println!("leads no more: {error}");
        }
    }
}

/// Writes until a write fails. Returning drops the leadership, which resigns.
async fn work(hydrant: &Hydrant, leadership: &Leadership) -> Result<(), Error> {
    let state = hydrant.state().under(leadership);
    for cents in 100.. {
        state.put("apples", format!("{cents} cents")).await?;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    Ok(())
}
