import ArgumentParser
import Foundation
import Logging
import NIOPosix
import ServiceLifecycle
import SluiceAdmin
import SluiceConfiguration
import SluiceCore
import SluiceEngine
import SluiceRedis
import UnixSignals

struct RunCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "run",
        abstract: "Follow Redis and settle rows, until stopped.",
        discussion: """
            SIGTERM or Ctrl-C stops it in good order: what was received is committed, at most for \
            30 seconds. A second one stops it at once, without loss: the next start goes on where \
            the database stands.
            """,
    )

    /// How long a stop in good order may take.
    static let drainMax = Duration.seconds(30)

    @OptionGroup var options: CommonOptions
    @Flag(name: .shortAndLong, help: "Log more.") var verbose = false

    func run() async throws {
        Allocator.configure()
        let configuration = try options.load()
        let endpoint = try configuration.endpoint()
        let logger = Terminal.logger(verbose ? .debug : .info)
        let group = MultiThreadedEventLoopGroup.singleton
        let pipeline = Pipeline(
            endpoint: endpoint, sink: configuration.sink(), mappings: configuration.tables,
            policy: configuration.policy, group: group,
            capture: configuration.redis.capture, marksPolicy: configuration.marksPolicy,
            configuresRedis: configuration.redis.configures,
            holdsBack: configuration.redis.holdsBack,
            retryAfter: configuration.retryAfter,
            showBaseline: isatty(STDERR_FILENO) == 1 ? Terminal.showBaseline : nil, logger: logger)
        let admin = AdminServer(
            host: configuration.adminHost, port: configuration.adminPort, pipeline: pipeline,
            group: group, token: configuration.adminToken, logger: logger)
        SecondSignal.exitHard()
        // Ends with this function, whether Redis could be asked by then or not.
        async let _: Void = RedisGuards.log(configuration) { message, hint in
            logger.warning("\(message)", metadata: ["hint": "\(hint)"])
        }
        var settings = ServiceGroupConfiguration(
            services: [
                .init(
                    service: pipeline, successTerminationBehavior: .gracefullyShutdownGroup,
                    failureTerminationBehavior: .gracefullyShutdownGroup),
                .init(service: admin, failureTerminationBehavior: .gracefullyShutdownGroup),
            ],
            gracefulShutdownSignals: [.sigterm, .sigint],
            logger: logger,
        )
        settings.maximumGracefulShutdownDuration = Self.drainMax
        do {
            try await ServiceGroup(configuration: settings).run()
        } catch {
            throw Self.exit(for: error)
        }
    }

    /// Says why the program ends, and with which code.
    private static func exit(for error: any Error) -> ExitCode {
        Terminal.complain("\(error)")
        switch error {
        case let error as RedisError:
            return error.message.contains("refuses") || error.message.contains("forbids")
                ? Sysexits.permission : Sysexits.unavailable
        case let error as SinkError:
            if error.code.hasPrefix("schema.") { return Sysexits.data }
            return error.response == .fenced ? Sysexits.temporary : Sysexits.unavailable
        default: return Sysexits.software
        }
    }
}

/// Ends the process at a second signal: what was committed stays, and the rest is replayed.
enum SecondSignal {
    private static let queue = DispatchQueue(label: "sluice.signals")
    nonisolated(unsafe) private static var sources: [any DispatchSourceSignal] = []

    static func exitHard() {
        let seen = Counter()
        for number in [SIGTERM, SIGINT] {
            let source = DispatchSource.makeSignalSource(signal: number, queue: queue)
            source.setEventHandler {
                if seen.next() == 2 {
                    Terminal.complain("stopped at once; the next start goes on from the database")
                    _exit(Sysexits.temporary.rawValue)
                }
            }
            source.resume()
            unsafe sources.append(source)
        }
    }

    private final class Counter: @unchecked Sendable {
        // Unchecked: only ever touched on the one queue.
        private var count = 0
        func next() -> Int {
            count += 1
            return count
        }
    }
}
