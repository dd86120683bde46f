job "lang-directives" {
  group "app" {
    task "main" {
      driver = "docker"

      config {
        image = "alpine:3.20"
      }

      env {
        LIST = "%{for i, x in ["a", "b"]}${i}=${x};%{endfor}"
        IF   = "%{if 1 > 2}yes%{else}no%{endif}"
        TRIM = "a %{~if true~} b %{~endif~} c"
      }
      template {
        destination = "local/list"
        data        = <<-EOT
          %{for x in ["a", "b"]~}
          server ${x} ${NOMAD_PORT_http}
          %{endfor~}
          end
        EOT
      }
    }
  }
}
