internal import NIOCore
internal import NIOHTTP1
internal import NIOPosix

/// Asks an admin server.
///
/// Not by URLSession: on Linux it keeps a processor busy for as long as it waits for an answer (measured
/// with Swift 6.3), and a flush may wait long.
public struct AdminExchange: Sendable {
    private let host: String
    private let port: Int

    /// Creates what asks the server at a host, which may be a name or an address, and a port.
    public init(host: String, port: Int) {
        self.host = host
        self.port = port
    }

    /// Sends one request, and waits for its answer.
    ///
    /// - Parameters:
    ///   - method: `GET` or `POST`.
    ///   - path: The path, with its `/`.
    ///   - token: What stands in `Authorization: Bearer …`, or nil for nothing.
    ///   - body: The bytes of the body.
    ///   - limit: The longest to wait once it is connected, or nil for as long as the server takes.
    /// - Returns: The status and the bytes of the answer.
    /// - Throws: What NIO throws when the server can't be reached; ``Cut`` when it goes meanwhile, or
    ///   takes longer than the limit.
    public func ask(
        _ method: String, _ path: String, token: String? = nil, body: [UInt8] = [],
        atMost limit: Duration? = nil,
    ) async throws -> (status: Int, body: [UInt8]) {
        let connection = try await ClientBootstrap(group: .singletonMultiThreadedEventLoopGroup)
            .channelOption(.socketOption(.so_keepalive), value: 1)
            .connect(host: host, port: port) { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHTTPClientHandlers()
                    return try NIOAsyncChannel(
                        wrappingChannelSynchronously: channel,
                        configuration: .init(
                            inboundType: HTTPClientResponsePart.self,
                            outboundType: HTTPClientRequestPart.self,
                        ),
                    )
                }
            }
        let channel = connection.channel
        let end = limit.map { limit in
            channel.eventLoop.scheduleTask(in: TimeAmount(limit)) { channel.close(promise: nil) }
        }
        defer { end?.cancel() }
        let head = HTTPRequestHead(
            version: .http1_1, method: HTTPMethod(rawValue: method), uri: path,
            headers: headers(token: token, length: body.count))
        return try await connection.executeThenClose { inbound, outbound in
            // At once: who has all that was announced answers, and closes the connection, although an
            // end is still to be written here.
            try await outbound.write(contentsOf: [
                .head(head), .body(.byteBuffer(ByteBuffer(bytes: body))), .end(nil),
            ])
            var status = 0
            var answer: [UInt8] = []
            for try await part in inbound {
                switch part {
                case .head(let head): status = Int(head.status.code)
                case .body(let bytes): answer += bytes.readableBytesView
                case .end: return (status, answer)
                }
            }
            throw Cut()
        }
    }

    private func headers(token: String?, length: Int) -> HTTPHeaders {
        let name = host.contains(":") ? "[\(host)]" : host
        var headers: HTTPHeaders = ["host": "\(name):\(port)", "content-length": "\(length)"]
        if let token { headers.add(name: "authorization", value: "Bearer \(token)") }
        return headers
    }

    /// The connection was closed before the server had answered.
    public struct Cut: Error {}
}
