job "volume-host" {
  group "app" {
    volume "data" {
      type      = "host"
      source    = "shared-data"
      read_only = true
    }

    task "main" {
      driver = "docker"

      config {
        image = "alpine:3.20"
      }

      volume_mount {
        volume           = "data"
        destination      = "/var/lib/data"
        read_only        = true
        propagation_mode = "host-to-task"
        selinux_label    = "z"
      }
    }
  }
}
