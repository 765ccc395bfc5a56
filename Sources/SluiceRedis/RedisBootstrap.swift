package import NIOCore
internal import NIOPosix
internal import NIOSSL

/// Opens channels to an endpoint.
package enum RedisBootstrap {
    /// The longest that connecting may take.
    static let connectMax = TimeAmount.seconds(5)

    /// Connects on an event loop, with TLS if the endpoint has it, and a handler at the end.
    package static func connect(
        to meant: RedisEndpoint, on loop: any EventLoop, autoRead: Bool = true,
        bufferBytes: Int = 64 * 1024, handler: @escaping @Sendable () -> any ChannelHandler,
    ) async throws(RedisError) -> any Channel {
        let endpoint = try await meant.resolved(on: loop)
        let context = try context(endpoint)
        let bootstrap = ClientBootstrap(group: loop)
            .connectTimeout(connectMax)
            .channelOption(.autoRead, value: autoRead)
            .channelOption(
                .recvAllocator, value: FixedSizeRecvByteBufferAllocator(capacity: bufferBytes)
            )
            .channelOption(.maxMessagesPerRead, value: 4)
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    let pipeline = channel.pipeline.syncOperations
                    if let context, case .tcp(let host, _) = endpoint.address {
                        try pipeline.addHandler(
                            NIOSSLClientHandler(
                                context: context, serverHostname: serverName(host),
                            )
                        )
                    }
                    try pipeline.addHandler(handler())
                }
            }
        do {
            switch endpoint.address {
            case .tcp(let host, let port):
                return try await bootstrap.connect(host: host, port: port).get()
            case .unix(let path):
                return try await bootstrap.connect(unixDomainSocketPath: path).get()
            case .sentinel: preconditionFailure("a resolved endpoint is a server")
            }
        } catch {
            throw RedisError(
                .retry, "can't connect to Redis at \(endpoint.address): \(Self.reason(error))",
                hint: "is the server running, and is the address in redis.url right?",
            )
        }
    }

    private static func context(_ endpoint: RedisEndpoint) throws(RedisError) -> NIOSSLContext? {
        guard let tls = endpoint.tls else { return nil }
        var configuration = TLSConfiguration.makeClientConfiguration()
        if let file = tls.caFile { configuration.trustRoots = .file(file) }
        do {
            return try NIOSSLContext(configuration: configuration)
        } catch {
            throw RedisError(
                .halt, "can't set up TLS: \(error)",
                hint: "is redis.tls_ca_file a readable PEM file?",
            )
        }
    }

    // An address can't be asked for by name; the certificate must name it itself.
    private static func serverName(_ host: String) -> String? {
        (try? SocketAddress(ipAddress: host, port: 0)) == nil ? host : nil
    }

    package static func reason(_ error: any Error) -> String {
        if let error = error as? NIOConnectionError {
            return error.connectionErrors.first.map { "\($0.error)" } ?? "no address for the host"
        }
        return "\(error)"
    }
}
