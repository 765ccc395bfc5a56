package import NIOCore
internal import RESPWire

extension RedisEndpoint {
    /// Whether Sentinels say which server is meant.
    package var isSentinel: Bool {
        if case .sentinel = address { true } else { false }
    }

    /// The server that is meant now: the endpoint itself, unless Sentinels have to be asked.
    package func resolved(on loop: any EventLoop) async throws(RedisError) -> RedisEndpoint {
        guard case .sentinel(let sentinels, let master) = address else { return self }
        var failure = RedisError(.retry, "no Sentinel is named")
        for sentinel in sentinels {
            do throws(RedisError) {
                return try await ask(sentinel, for: master, on: loop)
            } catch {
                // One that is down must not hide that another knows no such master.
                if failure.response != .halt { failure = error }
            }
        }
        throw failure
    }

    private func ask(
        _ sentinel: Sentinel, for master: String, on loop: any EventLoop,
    ) async throws(RedisError) -> RedisEndpoint {
        let endpoint = RedisEndpoint(
            address: .tcp(host: sentinel.host, port: sentinel.port), tls: tls)
        let connection = try await RedisConnection.connect(
            to: endpoint, on: loop, name: "sluice-sentinel")
        defer { connection.close() }
        let reply = try await connection.send(["SENTINEL", "GET-MASTER-ADDR-BY-NAME", master])
        if case .error(let text) = reply { throw RedisConnection.refusal(text, "SENTINEL") }
        guard let parts = reply.elements, parts.count == 2, let host = parts[0].text,
            let port = parts[1].text.flatMap({ Int($0) })
        else {
            throw RedisError(
                .halt, "the Sentinel at \(endpoint.address) knows no master \(master)",
                hint: "SENTINEL MASTERS lists the names; redis.url ends with one of them")
        }
        return RedisEndpoint(
            address: .tcp(host: host, port: port), user: user, password: password,
            database: database, tls: tls)
    }
}
