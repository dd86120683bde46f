job "network-dns" {
  group "app" {
    network {
      dns {
        servers  = ["1.1.1.1", "${attr.unique.network.ip-address}"]
        searches = ["example.org"]
        options  = ["ndots:2"]
      }
    }

    task "main" {
      driver = "docker"

      config {
        image = "alpine:3.20"
      }
    }
  }
}
