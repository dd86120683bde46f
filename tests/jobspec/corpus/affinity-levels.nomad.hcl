job "affinity-levels" {
  group "app" {
    affinity {
      attribute = "${meta.a}"
      value     = "group"
      weight    = 10
    }

    task "main" {
      driver = "docker"

      config {
        image = "alpine:3.20"
      }

      affinity {
        attribute = "${meta.a}"
        value     = "task"
      }
    }
  }
}
