package import NIOCore
internal import RESPWire
package import SluiceCore

/// What a replication link reports. All calls come on the link's event loop, in the stream's order.
package protocol ReplicationLinkDelegate: AnyObject, Sendable {
    /// The stream goes on where it was asked to.
    func linkContinued(history: ReplicationID?)
    /// The stream begins anew; the snapshot was passed over.
    func linkResynchronised(history: ReplicationID, offset: Int64)
    /// Bytes of the stream; true when more may be read.
    func linkReceived(_ bytes: ByteBuffer) -> Bool
    /// The link is closed, and why.
    func linkClosed(_ error: RedisError)
}

/// The connection that a server takes for a replica's.
///
/// No port is announced, so nobody promotes it; the snapshot is asked for without keys; after PSYNC
/// nothing is sent but acknowledgements.
package final class ReplicationLink: Sendable {
    private let channel: any Channel

    private init(_ channel: any Channel) {
        self.channel = channel
    }

    /// Connects and begins the handshake.
    ///
    /// - Parameter position: Where the stream is to go on, or nil for its present end.
    package static func connect(
        to endpoint: RedisEndpoint, on loop: any EventLoop, position: Position?,
        delegate: any ReplicationLinkDelegate,
    ) async throws(RedisError) -> ReplicationLink {
        let channel = try await RedisBootstrap.connect(
            to: endpoint, on: loop, autoRead: false, bufferBytes: 256 * 1024,
        ) {
            LinkHandler(endpoint: endpoint, position: position, delegate: delegate)
        }
        return ReplicationLink(channel)
    }

    /// Whether the link still stands.
    package var isActive: Bool { channel.isActive }

    /// Tells Redis up to where the database has everything.
    ///
    /// - Parameter includesAOF: Whether to say so in the terms of WAITAOF too, from 7.2 on.
    package func acknowledge(_ offset: Int64, includesAOF: Bool) {
        let number = "\(offset)"
        let command =
            includesAOF
            ? RESPEncoder.command("REPLCONF", "ACK", number, "FACK", number)
            : RESPEncoder.command("REPLCONF", "ACK", number)
        channel.writeAndFlush(channel.allocator.buffer(bytes: command), promise: nil)
    }

    /// Reads on after the delegate had enough.
    package func resume() {
        channel.read()
    }

    /// Closes the link.
    package func close() {
        channel.close(promise: nil)
    }

    /// Waits until the link is closed.
    package func closed() async {
        try? await channel.closeFuture.get()
    }
}

private final class LinkHandler: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    /// How long the handshake may take without a byte: Redis sends a line feed each second.
    private static let silenceMax = TimeAmount.seconds(15)
    /// How many such times the stream may be silent: a server pings its replicas every 10 s.
    private static let streamSilenceRoundsMax = 4
    /// The longest line of an answer.
    private static let lineMax = 4_096

    private enum State {
        case greeting(step: Int)
        case answer
        case snapshotHeader(ReplicationID, Int64)
        case snapshot(ReplicationID, Int64, remaining: Int)
        case snapshotUntil(ReplicationID, Int64, marker: [UInt8])
        case streaming
    }

    private let commands: [[String]]
    private let position: Position?
    private let delegate: any ReplicationLinkDelegate
    private var state = State.greeting(step: 0)
    private var buffer = ByteBuffer()
    private var failure: RedisError?
    private var wantsMore = true
    private var watchdog: Scheduled<Void>?
    private var hasHeard = false
    private var silentRounds = 0

    init(
        endpoint: RedisEndpoint, position: Position?, delegate: any ReplicationLinkDelegate,
    ) {
        var commands: [[String]] = []
        if let password = endpoint.password {
            commands.append(["AUTH"] + (endpoint.user.map { [$0] } ?? []) + [password])
        }
        commands += [
            ["PING"],
            ["CLIENT", "SETNAME", "sluice"],
            // Valkey 9.1 fails to make a snapshot of some data for replicas that do not say this.
            ["REPLCONF", "version", "9.1.0"],
            ["REPLCONF", "capa", "eof", "capa", "psync2"],
            ["REPLCONF", "rdb-filter-only", ""],
        ]
        let offset = position.map { "\($0.offset + 1)" } ?? "-1"
        commands.append(["PSYNC", position?.history.digits ?? "?", offset])
        self.commands = commands
        self.position = position
        self.delegate = delegate
    }

    func channelActive(context: ChannelHandlerContext) {
        send(0, context)
        watch(context)
        context.read()
    }

    private func watch(_ context: ChannelHandlerContext) {
        let bound = NIOLoopBound((self, context), eventLoop: context.eventLoop)
        watchdog = context.eventLoop.scheduleTask(in: Self.silenceMax) {
            let (handler, context) = bound.value
            handler.silentRounds = handler.hasHeard ? 0 : handler.silentRounds + 1
            handler.hasHeard = false
            var roundsMax = 1
            if case .streaming = handler.state {
                // Nothing is heard either while the stream is held.
                roundsMax = handler.wantsMore ? Self.streamSilenceRoundsMax : .max
            }
            guard handler.silentRounds < roundsMax else {
                return handler.fail(RedisError(.retry, "Redis does not answer"), context)
            }
            handler.watch(context)
        }
    }

    private func send(_ step: Int, _ context: ChannelHandlerContext) {
        let bytes = RESPEncoder.command(commands[step].map { Array($0.utf8) })
        context.writeAndFlush(wrapOutboundOut(context.channel.allocator.buffer(bytes: bytes)))
            .whenFailure { _ in }
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        var part = unwrapInboundIn(data)
        hasHeard = true
        if case .streaming = state {
            wantsMore = delegate.linkReceived(part)
            return
        }
        buffer.writeBuffer(&part)
        while failure == nil, step(context) {}
    }

    func channelReadComplete(context: ChannelHandlerContext) {
        if wantsMore, failure == nil { context.read() }
    }

    /// Takes one step of the handshake; false when more bytes are needed.
    private func step(_ context: ChannelHandlerContext) -> Bool {
        switch state {
        case .greeting(let step): return greet(step, context)
        case .answer: return answer(context)
        case .snapshotHeader(let history, let offset): return header(history, offset, context)
        case .snapshot(let history, let offset, let remaining):
            let count = min(remaining, buffer.readableBytes)
            buffer.moveReaderIndex(forwardBy: count)
            state = .snapshot(history, offset, remaining: remaining - count)
            if count == remaining { begin(history, offset) }
            return count == remaining
        case .snapshotUntil(let history, let offset, let marker):
            return skip(to: marker, history, offset)
        case .streaming:
            if buffer.readableBytes > 0 {
                wantsMore = delegate.linkReceived(buffer)
                buffer.clear()
            }
            return false
        }
    }

    private func line(_ context: ChannelHandlerContext) -> String? {
        // Bare line feeds keep the link alive while the server prepares its answer.
        while buffer.getInteger(at: buffer.readerIndex, as: UInt8.self) == 0x0A {
            buffer.moveReaderIndex(forwardBy: 1)
        }
        guard let end = buffer.readableBytesView.firstIndex(of: 0x0A) else {
            if buffer.readableBytes > Self.lineMax {
                fail(RedisError(.retry, "Redis answers with something that is no line"), context)
            }
            return nil
        }
        let text = buffer.readString(length: end - buffer.readerIndex) ?? ""
        buffer.moveReaderIndex(forwardBy: 1)
        return text.last == "\r" ? String(text.dropLast()) : text
    }

    private func greet(_ step: Int, _ context: ChannelHandlerContext) -> Bool {
        guard let line = line(context) else { return false }
        let command = commands[step]
        if line.hasPrefix("-"), !isOptional(command) {
            fail(RedisConnection.refusal(String(line.dropFirst()), command[0]), context)
            return false
        }
        let isLast = step + 2 == commands.count
        state = isLast ? .answer : .greeting(step: step + 1)
        send(step + 1, context)
        return true
    }

    // Redis does not know `REPLCONF version`, and a name may be forbidden.
    private func isOptional(_ command: [String]) -> Bool {
        command[0] == "CLIENT" || command[0] == "REPLCONF" && command[1] == "version"
    }

    private func answer(_ context: ChannelHandlerContext) -> Bool {
        guard let line = line(context) else { return false }
        let words = line.split(separator: " ").map(String.init)
        if words.first == "+CONTINUE" {
            state = .streaming
            delegate.linkContinued(history: words.count > 1 ? ReplicationID(words[1]) : nil)
            return true
        }
        if words.first == "+FULLRESYNC", words.count >= 3, let offset = Int64(words[2]) {
            state = .snapshotHeader(ReplicationID(words[1]), offset)
            return true
        }
        fail(Self.refusal(line), context)
        return false
    }

    private static func refusal(_ line: String) -> RedisError {
        let text = String(line.dropFirst())
        let isForbidden = text.hasPrefix("NOPERM") || text.hasPrefix("ERR unknown command")
        guard isForbidden else { return RedisConnection.refusal(text, "PSYNC") }
        return RedisError(
            .halt, "Redis forbids PSYNC to this user, so it can't be followed by replication",
            hint: "ACL SETUSER … +psync +replconf +ping; or, on a server that forbids it to "
                + "everybody, redis.capture: dirty-set or tracking (docs/capture.md)",
        )
    }

    private func header(
        _ history: ReplicationID, _ offset: Int64, _ context: ChannelHandlerContext,
    ) -> Bool {
        guard let line = line(context) else { return false }
        if line.hasPrefix("$EOF:") {
            state = .snapshotUntil(history, offset, marker: Array(line.dropFirst(5).utf8))
            return true
        }
        if line.hasPrefix("$"), let count = Int(line.dropFirst()), count >= 0 {
            state = .snapshot(history, offset, remaining: count)
            return true
        }
        fail(RedisError(.retry, "Redis did not send its snapshot: \(line)"), context)
        return false
    }

    private func skip(to marker: [UInt8], _ history: ReplicationID, _ offset: Int64) -> Bool {
        guard buffer.readableBytes >= marker.count else { return false }
        let view = buffer.readableBytesView
        var index = view.startIndex
        while let first = view[index...].firstIndex(of: marker[0]) {
            guard first + marker.count <= view.endIndex else { break }
            if view[first..<first + marker.count].elementsEqual(marker) {
                buffer.moveReaderIndex(to: first + marker.count)
                begin(history, offset)
                return true
            }
            index = first + 1
        }
        // What may be the beginning of the marker stays.
        buffer.moveReaderIndex(forwardBy: buffer.readableBytes - marker.count + 1)
        return false
    }

    private func begin(_ history: ReplicationID, _ offset: Int64) {
        state = .streaming
        delegate.linkResynchronised(history: history, offset: offset)
    }

    private func fail(_ error: RedisError, _ context: ChannelHandlerContext) {
        failure = failure ?? error
        context.close(promise: nil)
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        fail(RedisError(.retry, "the link to Redis failed: \(error)"), context)
    }

    func channelInactive(context: ChannelHandlerContext) {
        watchdog?.cancel()
        delegate.linkClosed(failure ?? RedisError(.retry, "the link to Redis was closed"))
    }
}
