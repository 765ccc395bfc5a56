// swift-tools-version: 6.2
import PackageDescription

let nio = "swift-nio"
let package = Package(
    name: "sluice",
    products: [
        .executable(name: "sluice", targets: ["sluice"]),
        .library(name: "SluiceCore", targets: ["SluiceCore"]),
        .library(name: "SluiceEngine", targets: ["SluiceEngine"]),
        .library(name: "SluiceTesting", targets: ["SluiceTesting"]),
    ],
    dependencies: [
        .package(url: "https://github.com/apple/swift-argument-parser.git", from: "1.8.2"),
        .package(url: "https://github.com/apple/swift-log.git", from: "1.16.2"),
        .package(url: "https://github.com/apple/swift-nio.git", from: "2.101.2"),
        .package(url: "https://github.com/apple/swift-nio-ssl.git", from: "2.37.6"),
        .package(url: "https://github.com/groue/GRDB.swift.git", from: "7.10.0"),
        .package(url: "https://github.com/jpsim/Yams.git", from: "6.2.2"),
        .package(
            url: "https://github.com/swift-server/swift-service-lifecycle.git",
            from: "2.13.0",
        ),
    ],
    targets: [
        .target(name: "SluiceCore"),
        .target(name: "RESPWire"),
        .target(
            name: "SluiceRedis",
            dependencies: [
                "RESPWire", "SluiceCore",
                .product(name: "Logging", package: "swift-log"),
                .product(name: "NIOCore", package: nio),
                .product(name: "NIOPosix", package: nio),
                .product(name: "NIOSSL", package: "swift-nio-ssl"),
            ],
        ),
        .target(name: "SluiceSQL", dependencies: ["SluiceCore"]),
        .target(
            name: "SluiceSQLite",
            dependencies: [
                "SluiceCore", "SluiceSQL",
                .product(name: "GRDB", package: "GRDB.swift"),
                .product(name: "GRDBSQLite", package: "GRDB.swift"),
                .product(name: "NIOPosix", package: nio),
            ],
        ),
        .systemLibrary(name: "CAllocator"),
        .systemLibrary(
            name: "CPostgres",
            pkgConfig: "libpq",
            providers: [.apt(["libpq-dev"]), .brew(["libpq"])],
        ),
        .target(
            name: "SluicePostgres",
            dependencies: [
                "CPostgres", "SluiceCore", "SluiceSQL",
                .product(name: "NIOPosix", package: nio),
            ],
        ),
        .target(
            name: "SluiceConfiguration",
            dependencies: ["SluiceCore", .product(name: "Yams", package: "Yams")],
        ),
        .target(
            name: "SluiceEngine",
            dependencies: [
                "CAllocator", "RESPWire", "SluiceCore", "SluiceRedis",
                .product(name: "Logging", package: "swift-log"),
                .product(name: "NIOCore", package: nio),
                .product(name: "ServiceLifecycle", package: "swift-service-lifecycle"),
            ],
        ),
        .target(
            name: "SluiceAdmin",
            dependencies: [
                "SluiceCore", "SluiceEngine",
                .product(name: "Logging", package: "swift-log"),
                .product(name: "NIOCore", package: nio),
                .product(name: "NIOHTTP1", package: nio),
                .product(name: "NIOPosix", package: nio),
                .product(name: "ServiceLifecycle", package: "swift-service-lifecycle"),
            ],
        ),
        .target(
            name: "SluiceTesting",
            dependencies: [
                "RESPWire", "SluiceCore", "SluiceRedis", "SluiceSQL",
                .product(name: "Logging", package: "swift-log"),
                .product(name: "NIOCore", package: nio),
                .product(name: "NIOPosix", package: nio),
            ],
        ),
        .target(
            name: "SluiceVerify",
            dependencies: [
                "RESPWire", "SluiceCore", "SluiceRedis", "SluiceSQL",
                .product(name: "NIOCore", package: nio),
                .product(name: "NIOPosix", package: nio),
            ],
        ),
        .executableTarget(
            name: "sluice",
            dependencies: [
                "SluiceAdmin", "SluiceConfiguration", "SluiceCore", "SluiceEngine",
                "SluicePostgres", "SluiceRedis", "SluiceSQL", "SluiceSQLite", "SluiceTesting",
                "SluiceVerify",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
                .product(name: "Logging", package: "swift-log"),
                .product(name: "NIOPosix", package: nio),
                .product(name: "ServiceLifecycle", package: "swift-service-lifecycle"),
                .product(name: "UnixSignals", package: "swift-service-lifecycle"),
            ],
        ),
        .target(
            name: "MarkExample", path: "Examples/dirty-set", exclude: ["mark.js", "mark.py"],
            sources: ["Mark.swift"]),
        .target(name: "CAllocations", path: "Tests/CAllocations"),
        .testTarget(
            name: "SluiceCoreTests",
            dependencies: [
                "CAllocations", "RESPWire", "SluiceConfiguration", "SluiceCore", "SluiceTesting",
            ],
        ),
        .testTarget(
            name: "SimulationTests",
            dependencies: ["RESPWire", "SluiceCore", "SluiceTesting"],
        ),
        .testTarget(name: "RESPWireTests", dependencies: ["RESPWire", "SluiceTesting"]),
        .testTarget(
            name: "ConfigurationTests",
            dependencies: ["SluiceConfiguration", "SluiceCore"],
        ),
        .testTarget(
            name: "SinkTests",
            dependencies: [
                "SluiceCore", "SluicePostgres", "SluiceSQL", "SluiceSQLite", "SluiceTesting",
            ],
        ),
        .testTarget(
            name: "IntegrationTests",
            dependencies: [
                "MarkExample", "SluiceConfiguration", "SluiceCore", "SluicePostgres",
                "SluiceSQL", "SluiceSQLite", "SluiceTesting", "SluiceVerify",
            ],
            resources: [.copy("Resources")],
        ),
        .testTarget(name: "CommandTests", dependencies: ["SluiceTesting"]),
        .testTarget(name: "TidyTests"),
    ],
)

for target in package.targets where target.type != .system {
    target.swiftSettings = [
        .enableUpcomingFeature("ExistentialAny"),
        .enableUpcomingFeature("InternalImportsByDefault"),
        .enableUpcomingFeature("MemberImportVisibility"),
        .enableUpcomingFeature("NonisolatedNonsendingByDefault"),
        .strictMemorySafety(),
        .treatAllWarnings(as: .error),
    ]
}
