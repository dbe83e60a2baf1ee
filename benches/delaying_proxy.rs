//! A TCP proxy that delivers everything late, as a server far away would: `delaying-proxy TO MILLISECONDS`.
//!
//! It prints the address at which it listens. The delay is that of a round trip, half of it each way.

#[path = "../tests/integration/support/delay.rs"]
mod delay;

use std::io::Write as _;
use std::time::Duration;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(to), Some(milliseconds)) = (arguments.next(), arguments.next()) else {
        return Err("usage: delaying-proxy ADDRESS:PORT MILLISECONDS".into());
    };
    let round_trip = Duration::from_millis(milliseconds.parse()?);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    writeln!(std::io::stdout(), "{}", listener.local_addr()?)?;
    delay::serve(listener, to.parse()?, round_trip).await;
    Ok(())
}
