job "volume-two" {
  group "app" {
    volume "b" {
      type   = "host"
      source = "bb"
    }
    volume "a" {
      type   = "host"
      source = "aa"
    }

    task "main" {
      driver = "docker"

      config {
        image = "alpine:3.20"
      }

      volume_mount {
        volume      = "a"
        destination = "/a"
      }
      volume_mount {
        volume      = "b"
        destination = "/b"
      }
    }
  }
}
