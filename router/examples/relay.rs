//! The floor of a proxy's cost, for measurements: bytes go both ways, nobody looks at them.
//! `relay PORT BACKEND_PORT…` takes the backends in turn, one for each connection.

use std::io;
use std::net::Ipv4Addr;

use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// Of each direction; allocated, and touched only as far as bytes come.
const BUFFER: usize = 64 * 1024;
const BACKLOG: u32 = 4096;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments = std::env::args().skip(1);
    let ports: Vec<u16> = arguments
        .map(|port| port.parse())
        .collect::<Result<_, _>>()?;
    let usage = "relay PORT BACKEND_PORT…";
    let (listen, backends) = ports.split_first().ok_or(usage)?;
    let first = *backends.first().ok_or(usage)?;
    let mut turn = backends.to_vec();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let listener = listen_on(*listen)?;
        loop {
            let (client, _) = listener.accept().await?;
            turn.rotate_left(1);
            let backend = turn.first().copied().unwrap_or(first);
            tokio::spawn(relay(client, backend));
        }
    })
}

fn listen_on(port: u16) -> io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind((Ipv4Addr::LOCALHOST, port).into())?;
    socket.listen(BACKLOG)
}

async fn relay(mut client: TcpStream, backend: u16) -> io::Result<()> {
    let mut server = TcpStream::connect((Ipv4Addr::LOCALHOST, backend)).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    tokio::io::copy_bidirectional_with_sizes(&mut client, &mut server, BUFFER, BUFFER).await?;
    Ok(())
}
