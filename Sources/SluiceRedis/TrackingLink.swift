package import NIOCore
internal import RESPWire
package import SluiceCore

/// The connection on which a server says which keys changed: `CLIENT TRACKING ON BCAST`.
///
/// Source: https://redis.io/docs/latest/develop/reference/client-side-caching/. A server pushes the names
/// of changed keys before it answers those who changed them, so that all which was answered before a
/// PING is heard before its reply.
package final class TrackingLink: Sendable {
    /// The most names that are held between two looks at them; beyond, all keys are to be read.
    package static let heardMax = 1_000_000

    /// What was heard.
    package struct Answer: Sendable {
        /// The keys that changed.
        package let keys: [Bytes]
        /// Whether more changed than are named: a database was flushed, or there were too many.
        package let isGap: Bool
    }

    private let connection: RedisConnection
    private let heard: NIOLoopBound<Heard>

    private final class Heard {
        var keys: Set<Bytes> = []
        var isGap = false
    }

    /// Whether the connection still stands.
    package var isActive: Bool { connection.isActive }

    private init(connection: RedisConnection, heard: NIOLoopBound<Heard>) {
        self.connection = connection
        self.heard = heard
    }

    /// Connects, and has the server say which keys with these prefixes change.
    ///
    /// - Parameter prefixes: None of them begins with another.
    package static func connect(
        to endpoint: RedisEndpoint, prefixes: [Bytes], on loop: any EventLoop,
    ) async throws(RedisError) -> TrackingLink {
        let heard: NIOLoopBound<Heard>
        do {
            heard = try await loop.submit { NIOLoopBound(Heard(), eventLoop: loop) }.get()
        } catch {
            throw RedisError(.retry, "the event loop has ended")
        }
        let connection = try await RedisConnection.connect(
            to: endpoint, on: loop, name: "sluice-tracking",
            onPush: { parts in note(parts, in: heard.value) })
        let link = TrackingLink(connection: connection, heard: heard)
        do throws(RedisError) {
            try await link.begin(prefixes)
            return link
        } catch {
            connection.close()
            throw error
        }
    }

    private func begin(_ prefixes: [Bytes]) async throws(RedisError) {
        let hello = try await connection.send(["HELLO", "3"])
        if case .error(let text) = hello { throw RedisConnection.refusal(text, "HELLO") }
        var command = ["CLIENT", "TRACKING", "ON", "BCAST", "NOLOOP"].map { Array($0.utf8) }
        for prefix in prefixes where !prefix.isEmpty { command += [Array("PREFIX".utf8), prefix] }
        if case .error(let text) = try await connection.send([command])[0] {
            throw RedisConnection.refusal(text, "CLIENT|TRACKING")
        }
    }

    private static func note(_ parts: [RESPValue], in heard: Heard) {
        guard parts.count == 2, parts[0].text == "invalidate" else { return }
        guard let keys = parts[1].elements else {
            heard.isGap = true
            return
        }
        for key in keys { if let bytes = key.bytes { heard.keys.insert(bytes) } }
        guard heard.keys.count > heardMax else { return }
        heard.keys = []
        heard.isGap = true
    }

    /// Sees that the server answers; what was heard stays.
    package func ping() async throws(RedisError) {
        let reply = try await connection.send(["PING"])
        if case .error(let text) = reply { throw RedisConnection.refusal(text, "PING") }
    }

    /// What changed before this call, since the last one.
    package func listen() async throws(RedisError) -> Answer {
        try await ping()
        let heard = heard
        let future = heard.eventLoop.submit { () -> Answer in
            let answer = Answer(keys: Array(heard.value.keys), isGap: heard.value.isGap)
            heard.value.keys = []
            heard.value.isGap = false
            return answer
        }
        do {
            return try await future.get()
        } catch {
            throw RedisError(.retry, "the event loop has ended")
        }
    }

    /// Closes the connection.
    package func close() { connection.close() }

    /// The prefixes of which none begins with another; one that is empty stands for all keys.
    package static func prefixes(_ mappings: [TableMapping]) -> [Bytes] {
        var chosen: [Bytes] = []
        for prefix in mappings.map(\.keys.prefix).sorted(by: { $0.count < $1.count })
        where !chosen.contains(where: { prefix.starts(with: $0) }) {
            chosen.append(prefix)
        }
        return chosen
    }
}
