internal import Foundation
public import Logging
internal import NIOCore
internal import NIOHTTP1
public import NIOPosix
public import ServiceLifecycle
internal import SluiceCore
public import SluiceEngine

/// Answers for a running pipeline over HTTP: `GET /health`, `/status`, `/metrics`, `POST /flush`,
/// `/repair`, `/reconcile`, `/resume`, `/dead-letters/retry`, `/dead-letters/discard`, and for a
/// comparison at an exact offset `/hold`, `/advance`, `/release`.
///
/// On loopback it needs no token, so whoever may log in to the machine may ask; elsewhere it is given
/// one, and answers nobody who does not know it.
public struct AdminServer: Service {
    /// The largest body of a request.
    private static let bodyMax = 64 << 20

    private let host: String
    private let port: Int
    private let pipeline: Pipeline
    private let group: MultiThreadedEventLoopGroup
    private let token: String?
    private let logger: Logger

    /// Creates a server, which does nothing until ``run()``.
    ///
    /// - Parameters:
    ///   - host: The address to listen on.
    ///   - port: The port; 0 takes any that is free.
    ///   - pipeline: What is asked.
    ///   - group: Where event loops are taken from.
    ///   - token: What must stand in `Authorization: Bearer …`, or nil for nothing.
    ///   - logger: Where the address is noted.
    public init(
        host: String, port: Int, pipeline: Pipeline, group: MultiThreadedEventLoopGroup,
        token: String? = nil, logger: Logger,
    ) {
        self.token = token
        self.host = host
        self.port = port
        self.pipeline = pipeline
        self.group = group
        self.logger = logger
    }

    /// Serves until it is shut down.
    public func run() async throws {
        let server = try await ServerBootstrap(group: group)
            .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
            .bind(host: host, port: port) { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.configureHTTPServerPipeline()
                    return try NIOAsyncChannel(
                        wrappingChannelSynchronously: channel,
                        configuration: .init(
                            inboundType: HTTPServerRequestPart.self,
                            outboundType: HTTPServerResponsePart.self,
                        ),
                    )
                }
            }
        let address = server.channel.localAddress.map { "\($0)" } ?? "?"
        logger.info("Admin listens", metadata: ["address": "\(address)"])
        await withGracefulShutdownHandler {
            try? await withThrowingDiscardingTaskGroup { tasks in
                try await server.executeThenClose { connections in
                    for try await connection in connections {
                        tasks.addTask { await serve(connection) }
                    }
                }
            }
        } onGracefulShutdown: {
            server.channel.close(promise: nil)
        }
    }

    private func serve(
        _ connection: NIOAsyncChannel<HTTPServerRequestPart, HTTPServerResponsePart>,
    ) async {
        try? await connection.executeThenClose { inbound, outbound in
            var head: HTTPRequestHead?
            var body = ByteBuffer()
            for try await part in inbound {
                switch part {
                case .head(let received): head = received
                case .body(let bytes):
                    guard body.readableBytes + bytes.readableBytes <= Self.bodyMax else { return }
                    body.writeImmutableBuffer(bytes)
                case .end: break
                }
                guard case .end = part, let head else { continue }
                let answer =
                    isKnown(head.headers)
                    ? await answer(head.method, head.uri, Data(body.readableBytesView))
                    : Answer(
                        status: .unauthorized, type: "text/plain",
                        body: "expected the token of admin.token: Authorization: Bearer TOKEN\n")
                var headers = HTTPHeaders()
                headers.add(name: "content-type", value: answer.type)
                headers.add(name: "content-length", value: "\(answer.body.utf8.count)")
                headers.add(name: "connection", value: "close")
                let response = HTTPResponseHead(
                    version: .http1_1, status: answer.status, headers: headers)
                try await outbound.write(.head(response))
                try await outbound.write(.body(.byteBuffer(ByteBuffer(string: answer.body))))
                try await outbound.write(.end(nil))
                return
            }
        }
    }

    // Takes as long for a wrong token as for one that is nearly right.
    private func isKnown(_ headers: HTTPHeaders) -> Bool {
        guard let token else { return true }
        let given = Array((headers.first(name: "authorization") ?? "").utf8)
        let wanted = Array("Bearer \(token)".utf8)
        var difference = given.count ^ wanted.count
        for (index, byte) in wanted.enumerated() {
            difference |= Int(byte ^ (index < given.count ? given[index] : 0))
        }
        return difference == 0
    }

    private struct Answer {
        let status: HTTPResponseStatus
        let type: String
        let body: String
    }

    private func answer(
        _ method: HTTPMethod, _ path: String, _ body: Data,
    ) async -> Answer {
        switch (method, path) {
        case (.GET, "/health"):
            let state = await pipeline.status().state
            let isWell = state == .streaming || state == .baseline
            return Answer(
                status: isWell ? .ok : .serviceUnavailable, type: "text/plain",
                body: state.rawValue + "\n")
        case (.GET, "/status"):
            let encoder = JSONEncoder()
            encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
            let body = (try? encoder.encode(await pipeline.status())).map {
                String(decoding: $0, as: UTF8.self)
            }
            return Answer(status: .ok, type: "application/json", body: (body ?? "{}") + "\n")
        case (.GET, "/metrics"):
            return Answer(
                status: .ok, type: "text/plain; version=0.0.4",
                body: Metrics.text(await pipeline.status()))
        case (.POST, "/flush"):
            let isDone = await pipeline.flush()
            return Answer(
                status: isDone ? .ok : .serviceUnavailable, type: "text/plain",
                body: isDone ? "committed\n" : "not committed\n")
        case (.POST, "/repair"):
            guard let names = try? JSONDecoder().decode([RowName].self, from: body) else {
                return Answer(
                    status: .badRequest, type: "text/plain",
                    body: "expected [{\"table\": …, \"key\": base64, \"member\": base64}]\n")
            }
            let isDone = await pipeline.lookAgain(
                Dictionary(grouping: names, by: \.table).mapValues { $0.map(\.identity) })
            return Answer(
                status: isDone ? .ok : .serviceUnavailable, type: "text/plain",
                body: isDone ? "\(names.count) rows\n" : "the database does not take rows\n")
        case (.POST, "/reconcile"): return await reconcile(body)
        case (.POST, "/hold"), (.POST, "/advance"), (.POST, "/release"):
            return await hold(path, body)
        case (.POST, "/dead-letters/retry"), (.POST, "/dead-letters/discard"):
            return await letters(path, body)
        case (.POST, "/resume"):
            guard let request = try? JSONDecoder().decode(ResumeRequest.self, from: body) else {
                return Answer(
                    status: .badRequest, type: "text/plain",
                    body: "expected {\"setAside\": false}\n")
            }
            let isDone = await pipeline.resume(setsAside: request.setAside)
            return Answer(
                status: isDone ? .ok : .conflict, type: "text/plain",
                body: isDone ? "trying\n" : "nothing waits for that\n")
        default:
            return Answer(
                status: .notFound, type: "text/plain",
                body: "GET /health, /status, /metrics; POST /flush, /repair, /reconcile, /resume, "
                    + "/dead-letters/retry, /dead-letters/discard, /hold, /advance, /release\n")
        }
    }

    private func letters(_ path: String, _ body: Data) async -> Answer {
        guard let request = try? JSONDecoder().decode(LetterRequest.self, from: body) else {
            return Answer(
                status: .badRequest, type: "text/plain",
                body: "expected {\"table\": …, \"key\": base64, \"member\": base64}, all optional\n"
            )
        }
        let count: (any Encodable)? =
            path.hasSuffix("retry")
            ? await pipeline.retryLetters(request.choice)
            : await pipeline.discardLetters(request.choice).map { ["discarded": $0] }
        guard let count, let data = try? JSONEncoder().encode(count) else {
            return Answer(
                status: .serviceUnavailable, type: "text/plain",
                body: "the database can't be asked now\n")
        }
        return Answer(
            status: .ok, type: "application/json",
            body: String(decoding: data, as: UTF8.self) + "\n"
        )
    }

    private func hold(_ path: String, _ body: Data) async -> Answer {
        if path == "/hold" {
            guard let place = await pipeline.hold(), let data = try? JSONEncoder().encode(place)
            else {
                return Answer(
                    status: .conflict, type: "text/plain",
                    body:
                        "the stream can't be held now: a baseline or a large key is read, Redis is "
                        + "away, somebody else holds it, or redis.capture has no stream\n")
            }
            return Answer(
                status: .ok, type: "application/json",
                body: String(decoding: data, as: UTF8.self) + "\n")
        }
        guard let place = try? JSONDecoder().decode(HeldPlace.self, from: body) else {
            return Answer(
                status: .badRequest, type: "text/plain",
                body: "expected what POST /hold answers: "
                    + "{\"number\": 1, \"offset\": 0, \"history\": …}\n")
        }
        let isDone =
            path == "/advance"
            ? await pipeline.advance(to: place) : await pipeline.release(place.number)
        return Answer(
            status: isDone ? .ok : .conflict, type: "text/plain",
            body: isDone ? "done\n" : "the stream is not held any more\n")
    }

    private func reconcile(_ body: Data) async -> Answer {
        guard let request = try? JSONDecoder().decode(ReconcileRequest.self, from: body) else {
            return Answer(
                status: .badRequest, type: "text/plain",
                body: "expected {\"doubtful\": false, \"limits\": {TABLE: most rows to delete}}\n")
        }
        let outcome = await pipeline.reconcile(
            limits: request.limits, includesDoubtful: request.doubtful)
        switch outcome {
        case .counted(let counts):
            let text = (try? JSONEncoder().encode(counts)).map {
                String(decoding: $0, as: UTF8.self)
            }
            return Answer(status: .ok, type: "application/json", body: (text ?? "{}") + "\n")
        case .refused(let reason):
            return Answer(status: .conflict, type: "text/plain", body: reason + "\n")
        }
    }
}
