package import NIOCore
package import RESPWire

/// A connection for commands and their replies, in the order in which they were sent.
package final class RedisConnection: Sendable {
    /// How long a server may be silent that owes a reply, before the connection is given up.
    private static let silenceMax = TimeAmount.seconds(10)

    private let channel: any Channel
    private let handler: NIOLoopBound<Handler>

    /// Whether the connection still stands.
    package var isActive: Bool { channel.isActive }

    private init(channel: any Channel, handler: NIOLoopBound<Handler>) {
        self.channel = channel
        self.handler = handler
    }

    /// Connects, authenticates, and selects the endpoint's database.
    ///
    /// - Parameters:
    ///   - onPush: Called on the event loop with each push of RESP3.
    ///   - onReplies: Called on the event loop when all replies of one `send` are there, before
    ///     whatever was received after them.
    package static func connect(
        to endpoint: RedisEndpoint, on loop: any EventLoop, name: String,
        onPush: (@Sendable ([RESPValue]) -> Void)? = nil,
        onReplies: (@Sendable () -> Void)? = nil,
    ) async throws(RedisError) -> RedisConnection {
        let channel = try await RedisBootstrap.connect(to: endpoint, on: loop) {
            Handler(onPush: onPush, onReplies: onReplies)
        }
        let handler: NIOLoopBound<Handler>
        do {
            handler = try await channel.pipeline.handler(type: Handler.self)
                .map { NIOLoopBound($0, eventLoop: loop) }.get()
        } catch {
            throw RedisError(.retry, "the connection to Redis closed at once")
        }
        let connection = RedisConnection(channel: channel, handler: handler)
        do throws(RedisError) {
            try await connection.greet(endpoint, name: name)
            return connection
        } catch {
            connection.close()
            throw error
        }
    }

    private func greet(_ endpoint: RedisEndpoint, name: String) async throws(RedisError) {
        if let password = endpoint.password {
            let reply = try await send(["AUTH"] + (endpoint.user.map { [$0] } ?? []) + [password])
            if case .error(let text) = reply { throw Self.refusal(text, "AUTH") }
        }
        // A name makes the connection easy to find; a server may forbid it.
        _ = try await send(["CLIENT", "SETNAME", name])
        // A new connection is in database 0, and Sentinels know no other.
        let select = endpoint.database == 0 ? [] : [["SELECT", "\(endpoint.database)"]]
        for command in [["PING"]] + select {
            let reply = try await send(command)
            if case .error(let text) = reply { throw Self.refusal(text, command[0]) }
        }
    }

    /// What a refused command means.
    package static func refusal(_ text: String, _ command: String) -> RedisError {
        let code = text.prefix { $0 != " " }
        switch code {
        case "LOADING", "MASTERDOWN", "NOMASTERLINK", "BUSY", "TRYAGAIN", "OOM", "MISCONF",
            "NOREPLICAS", "READONLY":
            return RedisError(.retry, "Redis is not ready (\(code))")
        case "NOAUTH", "WRONGPASS":
            return RedisError(
                .halt, "Redis refuses the user or password (\(code))",
                hint: "put both into redis.url: redis://user:password@host",
            )
        case "NOPERM":
            return RedisError(
                .halt, "Redis forbids \(command) to this user",
                hint: "ACL SETUSER … +\(command.lowercased()); docs/permissions.md has all of them",
            )
        default: return RedisError(.halt, "Redis refuses \(command): \(text)")
        }
    }

    /// Sends a command of texts.
    package func send(_ command: [String]) async throws(RedisError) -> RESPValue {
        try await send([command.map { Array($0.utf8) }])[0]
    }

    /// Sends commands at once, and waits for the replies to all.
    package func send(_ commands: [[[UInt8]]]) async throws(RedisError) -> [RESPValue] {
        let bytes = commands.flatMap { RESPEncoder.command($0) }
        return try await send(encoded: bytes, count: commands.count)
    }

    /// Sends commands that are encoded already.
    package func send(encoded bytes: [UInt8], count: Int) async throws(RedisError) -> [RESPValue] {
        let promise = channel.eventLoop.makePromise(of: [RESPValue].self)
        let channel = channel
        let handler = handler
        channel.eventLoop.execute {
            guard channel.isActive else { return promise.fail(ChannelError.ioOnClosedChannel) }
            handler.value.wait(for: count, promise, channel)
            channel.writeAndFlush(channel.allocator.buffer(bytes: bytes), promise: nil)
        }
        do {
            return try await promise.futureResult.get()
        } catch {
            throw RedisError(.retry, "the connection to Redis was lost")
        }
    }

    /// Waits until the connection is closed.
    package func closed() async {
        try? await channel.closeFuture.get()
    }

    /// Closes the connection; commands under way fail.
    package func close() {
        channel.close(promise: nil)
    }

    private final class Handler: ChannelInboundHandler {
        typealias InboundIn = ByteBuffer
        private typealias Waiting = (count: Int, promise: EventLoopPromise<[RESPValue]>)

        private var waiting: CircularBuffer<Waiting> = []
        private let onPush: (@Sendable ([RESPValue]) -> Void)?
        private let onReplies: (@Sendable () -> Void)?
        private var replies: [RESPValue] = []
        private var buffer = ByteBuffer()
        private var scanner = RESPScanner()
        private var heard = NIODeadline.now()
        private var isWatched = false

        init(
            onPush: (@Sendable ([RESPValue]) -> Void)?, onReplies: (@Sendable () -> Void)?,
        ) {
            self.onPush = onPush
            self.onReplies = onReplies
        }

        func wait(
            for count: Int, _ promise: EventLoopPromise<[RESPValue]>, _ channel: any Channel,
        ) {
            if waiting.isEmpty { heard = .now() }
            waiting.append((count, promise))
            if !isWatched { watch(channel, in: RedisConnection.silenceMax) }
        }

        // A server that hangs must not hold up what needs no answer of it.
        private func watch(_ channel: any Channel, in time: TimeAmount) {
            isWatched = true
            channel.eventLoop.assumeIsolated().scheduleTask(in: time) { [weak self] in
                guard let self else { return }
                isWatched = false
                guard !waiting.isEmpty else { return }
                let rest = heard + RedisConnection.silenceMax - .now()
                if rest <= .zero { channel.close(promise: nil) } else { watch(channel, in: rest) }
            }
        }

        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            heard = .now()
            var part = unwrapInboundIn(data)
            if buffer.readableBytes == 0 { buffer = part } else { buffer.writeBuffer(&part) }
            do {
                while let reply = try next() {
                    buffer.moveReaderIndex(forwardBy: reply.length)
                    take(reply.value)
                }
            } catch {
                context.close(promise: nil)
            }
        }

        private func next() throws -> (value: RESPValue, length: Int)? {
            let received = buffer
            let bytes = received.readableBytesUInt8Span
            guard bytes.count > 0, let length = try scanner.length(bytes) else { return nil }
            guard let reply = try RESPDecoder.decode(bytes), reply.length == length else {
                throw RESPError(offset: 0, expected: "a reply of \(length) bytes")
            }
            return reply
        }

        private func take(_ reply: RESPValue) {
            if case .push(let parts) = reply {
                onPush?(parts)
                return
            }
            replies.append(reply)
            guard let first = waiting.first, replies.count == first.count else { return }
            waiting.removeFirst()
            onReplies?()
            first.promise.succeed(replies)
            replies = []
        }

        func errorCaught(context: ChannelHandlerContext, error: any Error) {
            context.close(promise: nil)
        }

        func channelInactive(context: ChannelHandlerContext) {
            while let next = waiting.popFirst() { next.promise.fail(ChannelError.eof) }
        }
    }
}
