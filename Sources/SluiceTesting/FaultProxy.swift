internal import NIOCore
internal import NIOPosix

/// A TCP proxy on the loopback address that carries bytes badly when it is told to.
public final class FaultProxy: Sendable {
    /// How bytes are carried.
    public enum Weather: Sendable, Hashable {
        /// At once.
        case fair
        /// Each part after some milliseconds.
        case slow(Int)
        /// Not at all, though connections stand.
        case still
        /// One byte at a time.
        case bytewise
        /// Connections are closed as soon as they are made.
        case closed
    }

    /// The port to connect to.
    public let port: Int
    private let state: State
    private let loop: any EventLoop
    private let server: any Channel

    // Confined to the one loop that carries everything.
    fileprivate final class State: @unchecked Sendable {
        var weather = Weather.fair
        /// How many bytes from the server may pass before all connections are cut.
        var budget: Int?
        var carriers: [ObjectIdentifier: Carrier] = [:]
    }

    /// Starts a proxy for a port of the loopback address.
    public init(to target: Int) async throws {
        let loop = MultiThreadedEventLoopGroup.singleton.next()
        let state = State()
        self.loop = loop
        self.state = state
        server = try await ServerBootstrap(group: loop, childGroup: loop)
            .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
            .childChannelInitializer { client in
                client.eventLoop.makeCompletedFuture {
                    let up = Carrier(state, isFromServer: false)
                    try client.pipeline.syncOperations.addHandler(up)
                    let down = Carrier(state, isFromServer: true)
                    down.peer = client
                    let bound = NIOLoopBound((up, down), eventLoop: client.eventLoop)
                    ClientBootstrap(group: client.eventLoop)
                        .channelInitializer { channel in
                            channel.eventLoop.makeCompletedFuture {
                                try channel.pipeline.syncOperations.addHandler(bound.value.1)
                            }
                        }
                        .connect(host: "127.0.0.1", port: target)
                        .assumeIsolated()
                        .whenComplete { result in
                            guard case .success(let channel) = result else {
                                return client.close(promise: nil)
                            }
                            bound.value.0.peer = channel
                            bound.value.0.pump()
                        }
                }
            }
            .bind(host: "127.0.0.1", port: 0).get()
        port = server.localAddress?.port ?? 0
    }

    /// Changes how bytes are carried, those that wait included.
    public func set(_ weather: Weather) async throws {
        let state = state
        try await loop.submit {
            state.weather = weather
            for carrier in state.carriers.values {
                if weather == .closed { carrier.cut() } else { carrier.pump() }
            }
        }.get()
    }

    /// Cuts all connections once so many bytes more have come from the server; at once for zero.
    public func cut(after bytes: Int) async throws {
        let state = state
        try await loop.submit {
            if bytes > 0 {
                state.budget = bytes
            } else {
                for carrier in state.carriers.values { carrier.cut() }
            }
        }.get()
    }

    deinit { server.close(promise: nil) }
}

/// Carries what one side of a connection sends to the other.
private final class Carrier: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer

    var peer: (any Channel)?
    private let state: FaultProxy.State
    private let isFromServer: Bool
    private var context: ChannelHandlerContext?
    private var waiting: CircularBuffer<ByteBuffer> = []
    private var isScheduled = false
    private var hasEnded = false

    init(_ state: FaultProxy.State, isFromServer: Bool) {
        self.state = state
        self.isFromServer = isFromServer
    }

    func channelActive(context: ChannelHandlerContext) {
        self.context = context
        state.carriers[ObjectIdentifier(self)] = self
        if state.weather == .closed { cut() }
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        waiting.append(unwrapInboundIn(data))
        pump()
    }

    func channelInactive(context: ChannelHandlerContext) {
        state.carriers[ObjectIdentifier(self)] = nil
        self.context = nil
        hasEnded = true
        pump()
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) { cut() }

    func cut() {
        waiting.removeAll()
        context?.close(promise: nil)
        peer?.close(promise: nil)
    }

    func pump() {
        guard let peer, !isScheduled else { return }
        guard !waiting.isEmpty else {
            if hasEnded { peer.close(promise: nil) }
            return
        }
        switch state.weather {
        case .closed: cut()
        case .still: later(20, on: peer) { $0.pump() }
        case .fair: while !waiting.isEmpty, forward(.max, to: peer) {}
        case .slow(let pause):
            later(pause, on: peer) { carrier in
                _ = carrier.forward(.max, to: peer)
                carrier.pump()
            }
        case .bytewise:
            // Slow as it is, a large reply would never end.
            for _ in 0..<64 where !waiting.isEmpty {
                guard forward(1, to: peer) else { return }
            }
            later(1, on: peer) { $0.pump() }
        }
    }

    // Forwards some bytes; false when that cut the connection.
    private func forward(_ limit: Int, to peer: any Channel) -> Bool {
        guard var bytes = waiting.popFirst() else { return true }
        var isCut = false
        var count = min(limit, bytes.readableBytes)
        if isFromServer, let budget = state.budget {
            isCut = budget <= count
            count = min(count, budget)
            state.budget = isCut ? nil : budget - count
        }
        guard let part = bytes.readSlice(length: count) else { return true }
        if bytes.readableBytes > 0 { waiting.prepend(bytes) }
        guard isCut else {
            peer.writeAndFlush(part, promise: nil)
            return true
        }
        let all = Array(state.carriers.values)
        let bound = NIOLoopBound(all, eventLoop: peer.eventLoop)
        peer.writeAndFlush(part).whenComplete { _ in for carrier in bound.value { carrier.cut() } }
        return false
    }

    private func later(
        _ milliseconds: Int, on peer: any Channel, _ work: @escaping (Carrier) -> Void,
    ) {
        isScheduled = true
        let bound = NIOLoopBound((self, work), eventLoop: peer.eventLoop)
        peer.eventLoop.scheduleTask(in: .milliseconds(Int64(milliseconds))) {
            bound.value.0.isScheduled = false
            bound.value.1(bound.value.0)
        }
    }
}
