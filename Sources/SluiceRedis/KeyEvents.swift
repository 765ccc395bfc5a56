package import NIOCore
internal import RESPWire
package import SluiceCore

/// Listens to the events of keys that expired or were evicted, and says up to which offset of the
/// stream they are complete.
///
/// It speaks RESP3, in which a connection that listens may also send commands. Its barrier is a
/// transaction, so the offset, the setting and the events before it belong together.
package final class KeyEvents: Sendable {
    /// The events up to an offset.
    package struct Answer: Sendable {
        package let events: [KeyEvent]
        package let offset: Int64
        package let history: ReplicationID
        /// Whether the server publishes such events.
        package let isReliable: Bool
        /// Whether no setting of the server was changed since the last answer: one that was turned off
        /// and on again hides what happened in between.
        package let isUndisturbed: Bool
        /// Whether no database was flushed or swapped since the last answer.
        package let isUnflushed: Bool
        /// Whether a command was used that gives fields of hashes deadlines.
        package let hasUsedFieldDeadlines: Bool
    }

    private let connection: RedisConnection
    private let heard: NIOLoopBound<Heard>
    /// INFO with the sections that are needed; before 7.0 it takes only one name.
    private let info: [String]

    private final class Heard {
        var events: [KeyEvent] = []
        /// Those that were heard before the last reply, which says how far they are complete.
        var complete: [KeyEvent] = []
        /// How often settings were changed, as the server counts, when that was asked last.
        var changes: [String?]?
        /// How often databases were flushed or swapped, when that was asked last.
        var flushes: [String?]?
    }

    /// The flags of `notify-keyspace-events` that are needed: events by kind, expired, evicted.
    package static let flags = "Exe"

    /// Whether the connection still stands.
    package var isActive: Bool { connection.isActive }

    private init(connection: RedisConnection, heard: NIOLoopBound<Heard>, info: [String]) {
        self.connection = connection
        self.heard = heard
        self.info = info
    }

    /// Connects and listens.
    ///
    /// - Parameters:
    ///   - isOld: Whether the server is older than 7.0.
    ///   - mappings: The tables; events of other keys are not kept.
    package static func connect(
        to endpoint: RedisEndpoint, on loop: any EventLoop, isOld: Bool = false,
        mappings: [TableMapping],
    ) async throws(RedisError) -> KeyEvents {
        let heard: NIOLoopBound<Heard>
        do {
            heard = try await loop.submit { NIOLoopBound(Heard(), eventLoop: loop) }.get()
        } catch {
            throw RedisError(.retry, "the event loop has ended")
        }
        let connection = try await RedisConnection.connect(
            to: endpoint, on: loop, name: "sluice-events",
            onPush: { parts in
                guard let event = Self.event(parts) else { return }
                let isMine = mappings.contains {
                    $0.wantsEvents && $0.database == event.database
                        && $0.keys.matches(event.key.span)
                }
                if isMine { heard.value.events.append(event) }
            },
            onReplies: {
                heard.value.complete += heard.value.events
                heard.value.events = []
            })
        let info = isOld ? ["INFO", "all"] : ["INFO", "replication", "commandstats"]
        let events = KeyEvents(connection: connection, heard: heard, info: info)
        do throws(RedisError) {
            try await events.listen()
            return events
        } catch {
            connection.close()
            throw error
        }
    }

    private func listen() async throws(RedisError) {
        let hello = try await connection.send(["HELLO", "3"])
        if case .error(let text) = hello { throw RedisConnection.refusal(text, "HELLO") }
        // What it answers comes as a push; the PING says that it was done, or why not.
        let bytes =
            RESPEncoder.command(
                "PSUBSCRIBE", "__keyevent@*__:expired", "__keyevent@*__:evicted")
            + RESPEncoder.command("PING")
        if case .error(let text) = try await connection.send(encoded: bytes, count: 1)[0] {
            throw RedisConnection.refusal(text, "PSUBSCRIBE")
        }
    }

    /// Sees that the server publishes the events that are needed.
    ///
    /// - Returns: The flags that were set, or nil when all were there.
    package func configure() async throws(RedisError) -> String? {
        let reply = try await connection.send(["CONFIG", "GET", "notify-keyspace-events"])
        guard let present = Self.setting(reply) else {
            throw RedisError(.halt, "Redis forbids CONFIG GET to this user")
        }
        guard !Self.isEnough(present) else { return nil }
        let flags = present + Self.flags.filter { !present.contains($0) }
        let done = try await connection.send([
            "CONFIG", "SET", "notify-keyspace-events", flags,
        ])
        if case .error(let text) = done { throw RedisConnection.refusal(text, "CONFIG|SET") }
        return flags
    }

    /// Whether the server's setting has the flags that are needed.
    package static func isEnough(_ setting: String) -> Bool {
        setting.contains("E")
            && (setting.contains("A") || setting.contains("x") && setting.contains("e"))
    }

    /// The events since the last call, and the offset up to which they are complete.
    package func barrier() async throws(RedisError) -> Answer {
        let bytes =
            RESPEncoder.command("MULTI")
            + RESPEncoder.command(info.map { Array($0.utf8) })
            + RESPEncoder.command("CONFIG", "GET", "notify-keyspace-events")
            + RESPEncoder.command("EXEC")
        let replies = try await connection.send(encoded: bytes, count: 4)
        guard let values = replies[3].elements, values.count == 2 else {
            return try await withoutTransaction()
        }
        let setting = Self.setting(values[1])
        return try await answer(values[0], isReliable: setting.map(Self.isEnough) ?? false)
    }

    private func answer(_ info: RESPValue, isReliable: Bool) async throws(RedisError) -> Answer {
        let info = ServerInfo(info.text ?? "")
        let taken = await taken(changes: info.settingChanges, flushes: info.flushes)
        guard info.isMaster, let offset = info.offset, let history = info.history else {
            throw RedisError(.retry, "the server is no master any more")
        }
        return Answer(
            events: taken.events, offset: offset, history: history, isReliable: isReliable,
            isUndisturbed: taken.isUndisturbed, isUnflushed: taken.isUnflushed,
            hasUsedFieldDeadlines: info.hasUsedFieldDeadlines)
    }

    // Redis without memory takes no transaction, and one with a command that is forbidden is not run.
    private func withoutTransaction() async throws(RedisError) -> Answer {
        let question = ["CONFIG", "GET", "notify-keyspace-events"].map { Array($0.utf8) }
        let replies = try await connection.send([
            question, info.map { Array($0.utf8) },
        ])
        let before = Self.setting(replies[0]).map(Self.isEnough) ?? false
        let answer = try await answer(replies[1], isReliable: before)
        guard before, let after = Self.setting(try await connection.send([question])[0]),
            Self.isEnough(after)
        else {
            return Answer(
                events: answer.events, offset: answer.offset, history: answer.history,
                isReliable: false, isUndisturbed: answer.isUndisturbed,
                isUnflushed: answer.isUnflushed,
                hasUsedFieldDeadlines: answer.hasUsedFieldDeadlines)
        }
        return answer
    }

    private func taken(
        changes: [String?], flushes: [String?],
    ) async -> (events: [KeyEvent], isUndisturbed: Bool, isUnflushed: Bool) {
        let heard = heard
        let future = heard.eventLoop.submit { () -> ([KeyEvent], Bool, Bool) in
            let isUndisturbed = (heard.value.changes ?? changes) == changes
            let isUnflushed = (heard.value.flushes ?? flushes) == flushes
            defer {
                heard.value.complete = []
                heard.value.changes = changes
                heard.value.flushes = flushes
            }
            return (heard.value.complete, isUndisturbed, isUnflushed)
        }
        return (try? await future.get()) ?? ([], false, false)
    }

    /// Closes the connection.
    package func close() { connection.close() }

    /// Waits until the connection is closed.
    package func closed() async { await connection.closed() }

    // CONFIG GET answers a map in RESP3 and an array in RESP2; both are read as elements.
    private static func setting(_ reply: RESPValue) -> String? {
        guard let parts = reply.elements, parts.count == 2 else { return nil }
        return parts[1].text
    }

    // `pmessage`, the pattern, `__keyevent@<db>__:expired`, the key.
    private static func event(_ parts: [RESPValue]) -> KeyEvent? {
        guard parts.count == 4, parts[0].text == "pmessage", let channel = parts[2].text,
            let key = parts[3].bytes
        else { return nil }
        let number = channel.drop { $0 != "@" }.dropFirst().prefix { $0 != "_" }
        guard let database = Int(number) else { return nil }
        let cause: RemovalCause = channel.hasSuffix(":evicted") ? .evicted : .expired
        return KeyEvent(key: key, database: database, cause: cause)
    }
}
